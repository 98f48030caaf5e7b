# shellcheck shell=sh
# What all of ./lab uses: messages, root, Debian packages, virtual environments.

say() {
    echo "lab: $*"
}

fail() {
    echo "lab: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "Root is needed for: $*. Run this as root, or install sudo."
    fi
}

# Installs what is missing of PROGRAM=PACKAGE...
provide() {
    packages=
    for pair; do
        command -v "${pair%%=*}" >/dev/null || packages="$packages ${pair#*=}"
    done
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null || fail "Install$packages (Debian's names), and come again."
    say "Installing Debian packages:$packages"
    as_root apt-get update -q || say "Going on with the package lists that are there."
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $packages
}

# Makes FOLDER a virtual environment of PYTHON, with what is in LOCK... and, for tests of the package,
# the package itself.
environment() {
    folder=$1 python=$2
    shift 2
    made_from=$("$python" --version && cat pyproject.toml "$@" | sha256sum)
    [ "$(cat "$folder/made-from" 2>/dev/null)" != "$made_from" ] || return 0
    say "Making $folder with $("$python" --version)"
    "$python" -m venv "$folder"
    for lock; do
        say "Installing $lock into $folder"
        "$folder/bin/pip" install --quiet --require-hashes -r "$lock" ||
            fail "pip does not get what $lock names; see above. Is there a way to its package index?"
    done
    [ "$folder" = .venv-lab ] || "$folder/bin/pip" install --quiet --no-deps --no-build-isolation -e .
    echo "$made_from" >"$folder/made-from"
}

# Makes the environment FOLDER from LOCK..., after it has installed Python's part that Debian
# packs on its own.
ready_environment() {
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null || provide python3=python3
    "$python" -c 'import ensurepip' 2>/dev/null || provide "=python3-venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "Python 3.10 or later is needed. If you have one, name it: PYTHON=python3.12 ./lab ..."
    folder=$1
    shift
    environment "$folder" "$python" "$@"
}

# Makes .venv, after it has installed what is missing of PROGRAM=PACKAGE...
ready() {
    provide "$@"
    ready_environment .venv requirements/test.txt requirements/lint.txt
}

# Installs what is missing of Docker's engine, its client, and PROGRAM=PACKAGE...
provide_docker() {
    provide dockerd=docker.io "$@"
    # Up to Debian 12, docker.io contains it, and there is no such package.
    provide docker=docker-cli
}

ready_engine() {
    provide_docker busybox=busybox-static "$@"
    ready
}
