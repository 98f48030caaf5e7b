# shellcheck shell=sh
# ./lab test and its parts: lint, unit, engine, roles; and lab and guest, only when named. CI names lab.

# Prints the path of Python VERSION, from PATH or pyenv, if it is there and runs.
find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/"$1"*/bin/python; do
        if "$candidate" -c 'import ensurepip' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# Prints the engine of this machine and those that `./lab engines` fetched, with : between.
find_engines() {
    for dockerd in "$(command -v dockerd)" "$PWD"/.engines/[0-9]*/dockerd; do
        [ ! -x "$dockerd" ] || printf '%s:' "$dockerd"
    done | sed 's/:$//'
}

lint() {
    ready shellcheck=shellcheck
    result=0
    .venv/bin/ruff format --check . || result=1
    .venv/bin/ruff check . || result=1
    .venv/bin/mypy || result=1
    # What begins as a shell script does, and the parts of lab.
    # shellcheck disable=SC2046 # names without blanks
    shellcheck --external-sources --check-sourced \
        $(grep -rlE '^#!(/bin/sh|/usr/bin/env bash)' lab lab.d .ci molecule tests benchmarks) || result=1
    return $result
}

# Runs the tests in FOLDER... as root, with the environment VENV, several at a time: most of them wait
# for the kernel, an engine, or a clock. The more engines, the more memory; so 8 at most.
tests_in() {
    python=$1/bin/python
    shift
    workers=$(($(nproc) * 2))
    [ $workers -le 8 ] || workers=8
    as_root env CI="${CI:-}" MANUKA_ENGINES="${MANUKA_ENGINES:-}" \
        "$python" -m pytest --numprocesses "${WORKERS:-$workers}" --dist worksteal "$@"
}

unit() {
    ready mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs mkfs.btrfs=btrfs-progs \
        bsdtar=libarchive-tools busybox=busybox-static
    result=0
    say "Unit tests on $(.venv/bin/python --version)"
    tests_in .venv tests/unit tests/hostile tests/conformance || result=1
    for version in ${PYTHONS-3.7}; do
        python=$(find_python "$version")
        if [ -n "$python" ]; then
            environment ".venv-$version" "$python" requirements/test.txt
            say "Unit tests on $(".venv-$version/bin/python" --version)"
            tests_in ".venv-$version" tests/unit || result=1
        elif [ -n "${CI:-}" ]; then
            say "No Python $version on PATH or under pyenv: in CI its unit tests have to run."
            result=1
        else
            say "No Python $version on PATH or under pyenv: its unit tests are left out."
        fi
    done
    return $result
}

engine() {
    ready_engine docker-registry=docker-registry
    MANUKA_ENGINES=${MANUKA_ENGINES:-$(find_engines)}
    say "Engine tests on $MANUKA_ENGINES"
    tests_in .venv tests/engine tests/parity tests/crash
}

# Quotas of xfs, and defaults of the kernel, which this machine's may lack or lend to others.
guest() {
    ready qemu-system-x86_64=qemu-system-x86 mmdebstrap=mmdebstrap mkfs.ext4=e2fsprogs
    as_root tests/guest/run
}

# The roles, and machines that they have made.
lab() {
    lab_result=0
    roles || lab_result=1
    own_before=
    [ ! -S "$(own_socket)" ] || own_before=yes
    if ready_docker; then
        # An engine that was started for the tests goes with them, also after Ctrl-C.
        if [ -z "$own_before" ] && [ "$DOCKER_HOST" = "$(lab.d/engine host)" ]; then
            trap 'as_root lab.d/engine stop' EXIT
            trap 'exit 130' INT # without these, dash ends and leaves the trap above alone
            trap 'exit 143' TERM
        fi
        machines || lab_result=1
    elif [ -n "${CI:-}" ]; then
        say "No Docker engine for machines: in CI their tests have to run."
        lab_result=1
    else
        say "No Docker engine for machines: their tests are left out."
    fi
    return $lab_result
}

# What can be told of the roles without a machine.
roles() {
    ready_lab
    result=0
    lab_path=$PWD/.venv-lab/bin:$PATH
    say "ansible-lint, yamllint and a syntax check"
    env PATH="$lab_path" ANSIBLE_HOME="$PWD/.lab/ansible" ANSIBLE_ROLES_PATH="$PWD/ansible/roles" \
        ansible-lint --offline || result=1
    .venv-lab/bin/yamllint --strict . || result=1
    for playbook in ansible/*.yml; do
        (cd ansible && PATH=$lab_path ansible-playbook --syntax-check "../$playbook") || result=1
    done
    return $result
}

# Runs COMMAND with its output in .lab/NAME.log, at the same time as what comes next; `finish` waits.
begin() {
    name=$1
    shift
    {
        started=$(date +%s)
        status=0
        "$@" || status=$?
        echo "$(($(date +%s) - started)) s"
        exit $status
    } >".lab/$name.log" 2>&1 &
    begun="$begun $name=$!"
}

# Waits for what was begun, all of it or that whose name begins with $1, and shows how it went: the
# tests' last lines, or all of a log.
finish() {
    unfinished=
    later=
    for one in $begun; do
        name=${one%%=*}
        case $name in
        "${1:-}"*) ;;
        *)
            later="$later $one"
            continue
            ;;
        esac
        if wait "${one#*=}"; then
            grep -E '=+ .* (passed|failed|error).* in ' ".lab/$name.log" || :
            say "$name passed in $(tail -n 1 ".lab/$name.log")"
        else
            cat ".lab/$name.log"
            say "$name failed."
            unfinished="$unfinished $name"
        fi
    done
    begun=$later
    [ -z "$unfinished" ]
}

tests_of_machines() {
    as_root env DOCKER_HOST="$DOCKER_HOST" CI="${CI:-}" PATH="$PWD/.venv-lab/bin:$PATH" \
        .venv-lab/bin/python -m pytest "$@"
}

# Molecule's scenarios and the tests that make machines of their own, some at a time. Vagrant's begin
# first: a machine without KVM is what all of this waits for.
machines() {
    provide gpg=gnupg busybox=busybox-static
    [ -e /usr/lib/python3/dist-packages/apt/__init__.py ] || provide "=python3-apt"
    as_root tests/vagrant/packages
    say "A machine of Vagrant's, and Molecule's scenarios default, pair and upgrade, at the same time;"
    say "their output is in .lab/*.log"
    begun=
    failed=
    begin vagrant tests_of_machines tests/vagrant
    for release in bullseye bookworm trixie; do
        begin "image-$release" machine_image $release
    done
    if finish image; then
        for scenario in default pair upgrade; do
            begin "molecule-$scenario" molecule $scenario test
        done
        finish molecule || failed=yes
        begin roles tests_of_machines tests/lab -m "not machine"
        begin machine tests_of_machines tests/lab -m machine
    else
        failed=yes
    fi
    finish || failed=yes
    [ -z "$failed" ]
}

# Runs each part to its end, also when one before it failed.
test_parts() {
    failed=
    for part; do
        started=$(date +%s)
        ./lab "$part" || failed="$failed $part"
        say "$part took $(($(date +%s) - started)) s"
    done
    [ -z "$failed" ] || fail "Failed:$failed"
    say "Passed: $*"
}
