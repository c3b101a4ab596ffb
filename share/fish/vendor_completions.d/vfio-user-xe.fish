# Completion of vfio-user-xe in fish: the program itself says what may follow, and else files may.
complete --command vfio-user-xe --arguments "(env _VFIO_USER_XE_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) vfio-user-xe 2>/dev/null)"
