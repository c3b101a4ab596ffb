"""The programs in the guest: /init, and the agent that executes commands sent over the second serial port.

Both are scripts for busybox's shell, so a guest needs no compiled helper and any kernel will do.  The protocol is
described in `channel.py`.
"""

from __future__ import annotations

# PID 1.  It waits for the agent in the foreground, and so reaps every orphan meanwhile.
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
echo "init: the guest's /init is running"
if [ -s /etc/modules ]; then
    while read -r module; do
        modprobe $module || echo "init: modprobe $module failed"
    done </etc/modules
fi
# A root file system of the guest's own (root_filesystem.py): read-only, below a layer in memory for changes.
if [ -s /etc/guest-root ]; then
    . /etc/guest-root
    for module in $modules; do
        modprobe -q $module
    done
    source=$tag
    for disk in /sys/block/vd*; do
        [ "$(cat $disk/serial 2>/dev/null)" = $tag ] && source=/dev/${disk##*/}
    done
    root=/.root/merged
    mount -t tmpfs -o mode=755 tmpfs /.root/changes
    mkdir /.root/changes/work
    # Not a layer of its own: one below another's folder is refused.
    cp -a /.files /.root/changes/upper
    rm -rf /.files
    layers=lowerdir=/.root/image:/,upperdir=/.root/changes/upper,workdir=/.root/changes/work
    if ! { mount -t $type -o $options $source /.root/image && mount -t overlay -o $layers overlay $root; }; then
        echo "init: the root file system ($type on $source) could not be mounted"
        poweroff -f
    fi
    for name in proc sys dev run tmp; do
        mkdir -p $root/$name
        mount --rbind /$name $root/$name
    done
    export GUEST_ROOT=$root
fi
while :; do
    /usr/sbin/guest-agent
    echo "init: the agent ended with $?; starting it again"
done
"""

# A command runs below a supervisor in the background while the agent goes on reading: so it can be told to kill the
# command, or to give up on one that cannot be killed because it hangs in the kernel.
AGENT = """#!/bin/sh
port=${1:-/dev/ttyS1}
dir=${2:-/run/agent}
rm -rf $dir
mkdir -p $dir
exec 3<>$port || { sleep 1; exit 1; }
stty raw -echo 115200 <&3 2>/dev/null
# Fewer interrupts for what comes in: one for 14 bytes instead of 8.
{ echo 14 >/sys/class/tty/${port##*/}/rx_trig_bytes; } 2>/dev/null

receive() { # FORM SIZE FILE
    case $1 in
    z) dd bs=$2 count=1 iflag=fullblock <&3 2>/dev/null | gunzip -c >$3 ;;
    r) dd bs=$2 count=1 iflag=fullblock <&3 >$3 2>/dev/null ;;
    *) : >$3 ;;
    esac
}

answer() { # ID CODE: gzip for what is large; the port is slow, but a process costs time too
    rm -f $dir/$1.pid
    set -- $1 $2 $(wc -c $dir/$1.out $dir/$1.err)
    out="r $3" out_file=$dir/$1.out err="r $5" err_file=$dir/$1.err
    out_size=$3 err_size=$5
    if [ $3 -gt 2048 ]; then
        head -c $3 $out_file | gzip -1 >$out_file.gz
        out_file=$out_file.gz
        out_size=$(wc -c <$out_file)
        out="z $out_size"
    fi
    if [ $5 -gt 2048 ]; then
        head -c $5 $err_file | gzip -1 >$err_file.gz
        err_file=$err_file.gz
        err_size=$(wc -c <$err_file)
        err="z $err_size"
    fi
    # What a command has left running may still write to both: no more is sent than was said.
    {
        echo "DONE $1 $2 $out $err"
        [ $out_size = 0 ] || head -c $out_size $out_file
        [ $err_size = 0 ] || head -c $err_size $err_file
    } >&3
    rm -f $dir/$1.*
}

read -r boot </proc/sys/kernel/random/boot_id
echo "READY $boot $$" >&3
while read -r verb id a b c d <&3; do
    case $verb in
    RUN)
        receive $a $b $dir/$id.script
        receive $c $d $dir/$id.in
        # The supervisor must not be a child of this shell: busybox's `read` forgets what it has read of a line when
        # SIGCHLD arrives, and the next line is on its way as soon as the answer is out.
        (
            (
                read -r self rest </proc/self/stat
                echo $self >$dir/$id.supervisor
                setsid ${GUEST_ROOT:+chroot $GUEST_ROOT} sh $dir/$id.script <$dir/$id.in >$dir/$id.out 2>$dir/$id.err 3>&- &
                echo $! >$dir/$id.pid
                wait $!
                answer $id $?
            ) 2>/dev/null &
        )
        ;;
    KILL)
        [ -f $dir/$id.pid ] && read -r pid <$dir/$id.pid && kill -9 -$pid 2>/dev/null
        ;;
    DROP)
        if [ -f $dir/$id.pid ] && read -r supervisor <$dir/$id.supervisor; then
            kill -9 $supervisor
            answer $id 137
        fi
        ;;
    esac
done
"""
