# shellcheck shell=sh
# ./lab up and ./lab shell: the machine that is there to be used, a container or a VM.

machine=manuka-lab # as molecule/lab names it

# Prints Debian's code name for MACHINE_RELEASE.
code_name() {
    case ${MACHINE_RELEASE:-12} in
    11 | bullseye) echo bullseye ;;
    12 | bookworm) echo bookworm ;;
    13 | trixie) echo trixie ;;
    *) fail "MACHINE_RELEASE=$MACHINE_RELEASE is no machine that can be made here: 11, 12 and 13 are
Debian's releases. Ubuntu's want a virtual machine: MACHINE_RELEASE=jammy ./lab up --vm" ;;
    esac
}

machine_is_there() {
    [ "$($by docker container inspect --format '{{index .Config.Labels "manuka.lab"}}' $machine \
        2>/dev/null)" = "$(pwd -P)" ]
}

# Prints running, exited, paused, or what else Docker says of that machine.
machine_state() {
    $by docker container inspect --format '{{.State.Status}}' $machine
}

# Starts that machine if it is off, and waits until it has booted.
start_machine() {
    [ "$(machine_state)" != paused ] || $by docker container unpause $machine >/dev/null
    $by docker container start $machine >/dev/null
    wait_for_reboot
    tries=120
    while :; do
        case $($by docker exec $machine systemctl is-system-running --wait 2>/dev/null) in
        running | degraded) return ;;
        esac
        tries=$((tries - 1))
        [ $tries != 0 ] || fail "The machine does not boot. Its state: $(machine_state)."
        sleep 0.5
    done
}

# Waits while that machine is between the end and the start that make a reboot.
wait_for_reboot() {
    tries=120
    while [ "$(machine_state)" = restarting ] && [ $tries != 0 ]; do
        tries=$((tries - 1))
        sleep 0.5
    done
}

vm_is_there() {
    [ -n "$(find .vagrant/machines -name id 2>/dev/null)" ]
}

vm_is_on() {
    vagrant status --machine-readable | grep -q ',state,running$'
}

up() {
    if [ "${1:-}" = --vm ]; then
        up_vm
    else
        up_container
    fi
}

up_container() {
    MACHINE_RELEASE=$(code_name)
    ready_docker
    ready_lab
    if machine_is_there; then
        image=$($by docker container inspect --format '{{.Config.Image}}' $machine)
        [ "$image" = "manuka-machine:$MACHINE_RELEASE" ] ||
            fail "There is a machine with Debian ${image#*:} already. ./lab down removes it."
        start_machine
    else
        $by rm -rf .lab/molecule/lab
    fi
    say "Making a machine with Debian $MACHINE_RELEASE in Docker at $DOCKER_HOST"
    machine_image "$MACHINE_RELEASE" || fail "There is no image of a machine."
    with_progress molecule lab converge ||
        fail "The machine is not as it should be. Above is the end of .lab/log, which has all of it."
    say "A container on the machine:"
    $by docker exec --interactive $machine sh -s <lab.d/show
    say "The machine stays: ./lab shell is a shell on it, ./lab down removes it."
}

up_vm() {
    [ -f Vagrantfile ] || fail "There is no Vagrantfile here."
    command -v vagrant >/dev/null ||
        fail "Install Vagrant with VirtualBox or libvirt, for example
apt-get install vagrant vagrant-libvirt libvirt-daemon-system, and come again."
    ready_lab
    vagrant up
    say "A container on the machine:"
    vagrant ssh --no-tty -c 'sudo sh -s' <lab.d/show
    say "The machine stays: ./lab shell is a shell on it, ./lab down removes it."
}

# A shell on the machine, or one command with its words as they are.
shell() {
    if find_docker && machine_is_there; then
        wait_for_reboot
        [ "$(machine_state)" = running ] || fail "The machine is off ($(machine_state)): ./lab up starts it."
        terminal=--interactive
        [ ! -t 0 ] || [ ! -t 1 ] || terminal=--interactive\ --tty
        [ $# -gt 0 ] || set -- bash -l
        # shellcheck disable=SC2086 # two words
        $by docker exec $terminal --workdir /root $machine "$@"
    elif vm_is_there; then
        vm_is_on || fail "The virtual machine is off: ./lab up --vm starts it."
        if [ $# -gt 0 ]; then
            terminal=--no-tty
            [ ! -t 0 ] || [ ! -t 1 ] || terminal=--tty
            vagrant ssh $terminal -c "sudo$(quoted "$@")"
        else
            vagrant ssh -- -t sudo -i
        fi
    else
        fail "There is no machine here, or no Docker engine answers that has it: ./lab up makes one."
    fi
}

# Prints WORD... as a shell reads them back.
quoted() {
    for word; do
        printf " '%s'" "$(printf %s "$word" | sed "s/'/'\\\\''/g")"
    done
}

# Runs COMMAND with its output in .lab/log, and shows the names of Ansible's tasks, and the end of
# the log if it fails.
with_progress() {
    : >.lab/log
    {
        status=0
        "$@" 2>&1 || status=$?
        echo "status: $status"
    } | tee .lab/log | sed -un 's/^ *TASK \[\(.*\)\].*/lab:   \1/p'
    [ "$(tail -n 1 .lab/log)" != "status: 0" ] || return 0
    tail -n 40 .lab/log >&2
    return 1
}
