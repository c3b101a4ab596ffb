"""The vfio-user protocol: the server and both of its back ends, clients, and the control socket. Only this package knows sockets."""
