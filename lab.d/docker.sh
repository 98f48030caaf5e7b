# shellcheck shell=sh
# The Docker engine that carries the lab's machines, and Ansible and Molecule on it.
#
# Easy to get wrong: whose engine it is. One that answers is its owner's, who may be this user or
# root: it gets containers and images, and keeps its settings. lab.d/engine is the lab's own.

by= # the word before a command that talks to the engine

# Prints the path at which the lab's own engine listens.
own_socket() {
    lab.d/engine host | sed 's,^unix://,,'
}

# Sets DOCKER_HOST to an engine that answers, and `by` to as_root if only root can reach it. The
# lab's own goes first, since a machine may be there.
find_docker() {
    command -v docker >/dev/null || return 1
    by=
    if [ -S "$(own_socket)" ]; then
        host=unix://$(own_socket)
        by=as_root
    else
        host=${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null ||
            echo unix:///var/run/docker.sock)}
        docker --host "$host" version >/dev/null 2>&1 || by=as_root
    fi
    $by docker --host "$host" version >/dev/null 2>&1 || return 1
    export DOCKER_HOST="$host"
}

# The same, and starts the lab's own engine where none answers.
ready_docker() {
    find_docker && return
    [ -z "${DOCKER_HOST:-}" ] || fail "No Docker engine answers at DOCKER_HOST, which is $DOCKER_HOST."
    provide_docker slirp4netns=slirp4netns
    # Where systemd runs, the package has just started one.
    find_docker && return
    say "Starting a Docker engine of the lab's own; ./lab down removes it"
    as_root lab.d/engine start
    find_docker
}

# Makes .venv-lab: Ansible, Molecule and Testinfra.
ready_lab() {
    ready_environment .venv-lab requirements/lab.txt
    mkdir -p .lab
}

# Runs a command with the lab's Ansible and Molecule, whose files stay in this folder.
in_lab() {
    $by env PATH="$PWD/.venv-lab/bin:$PATH" DOCKER_HOST="$DOCKER_HOST" \
        XDG_CACHE_HOME="$PWD/.lab/cache" ANSIBLE_HOME="$PWD/.lab/ansible" \
        CI="${CI:-}" NO_COLOR=1 PY_COLORS=0 ANSIBLE_NOCOLOR=1 ANSIBLE_FORCE_COLOR=0 "$@"
}

# molecule SCENARIO VERB [OPTION...]
molecule() {
    scenario=$1 verb=$2
    shift 2
    in_lab env MOLECULE_EPHEMERAL_DIRECTORY="$PWD/.lab/molecule/$scenario" \
        MACHINE_RELEASE="${MACHINE_RELEASE:-bookworm}" \
        molecule --base-config .config/molecule/config.yml "$verb" --scenario-name "$scenario" \
        --no-command-borders "$@"
}

# Provides the image of a machine with RELEASE.
machine_image() {
    status=0
    in_lab env MACHINE_IMAGE="${MACHINE_IMAGE:-}" MACHINE_MIRROR="${MACHINE_MIRROR:-}" \
        molecule/machine "$1" || status=$?
    [ $status = 3 ] || return $status
    # It takes Debian's packages, and what unpacks them is missing.
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || provide "=debian-archive-keyring"
    provide mmdebstrap=mmdebstrap
    machine_image "$1"
}

# Prints this checkout's machines on the engine, those of Molecule's scenarios, too.
machines_of_checkout() {
    $by docker container ls --all --quiet --filter "label=manuka.lab=$(pwd -P)"
}

# Fails if a container that is a machine may be on an engine that does not answer.
all_in_reach() {
    [ ! -d .lab/molecule/lab ] || [ -S "$(own_socket)" ] ||
        fail "No Docker engine answers, and the machine is on one. Start that engine, and repeat this;
if it is gone for good: rm -r .lab/molecule"
}

# Removes this checkout's machines, and the engine if it is the lab's own.
remove_machines() {
    # Without one, Vagrant need not even reach VirtualBox or libvirt.
    if vm_is_there; then
        vagrant destroy --force || fail "Vagrant does not remove the virtual machine; see above."
    fi
    if find_docker; then
        machines=$(machines_of_checkout)
        if [ -n "$machines" ]; then
            say "Shutting down the lab's machines"
            # shellcheck disable=SC2086 # a list of names
            $by docker container stop --time 30 $machines >/dev/null
            # shellcheck disable=SC2086
            $by docker container rm --force --volumes $machines >/dev/null
        fi
    else
        all_in_reach
    fi
    as_root lab.d/engine stop
    as_root rm -rf .vagrant .lab/molecule # what Vagrant and Molecule know of them
}

# Removes the images of machines, and the engine if it is the lab's own. Fails while there is a machine.
remove_images() {
    ! vm_is_there || fail "There is a virtual machine: ./lab down removes it, then ./lab clean the rest."
    if find_docker; then
        [ -z "$(machines_of_checkout)" ] ||
            fail "There is a machine: ./lab down removes it, then ./lab clean the rest."
        # One that another checkout's machine uses stays.
        for image in $($by docker image ls --format '{{.Repository}}:{{.Tag}}' manuka-machine); do
            $by docker image rm "$image" >/dev/null 2>&1 || :
        done
    else
        all_in_reach
    fi
    as_root lab.d/engine stop
}
