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
    if [ $3 -gt 2048 ]; then
        gzip -1 $out_file
        out_file=$out_file.gz
        out="z $(wc -c <$out_file)"
    fi
    if [ $5 -gt 2048 ]; then
        gzip -1 $err_file
        err_file=$err_file.gz
        err="z $(wc -c <$err_file)"
    fi
    { echo "DONE $1 $2 $out $err"; [ "$out$err" = "r 0r 0" ] || cat $out_file $err_file; } >&3
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
                setsid sh $dir/$id.script <$dir/$id.in >$dir/$id.out 2>$dir/$id.err 3>&- &
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
