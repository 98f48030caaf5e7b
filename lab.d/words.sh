# shellcheck shell=sh
# The words that a verb of ./lab takes: its usage, and what is refused before the verb does anything.

verbs="up shell down clean demo test engines fuzz lock help"
parts="lint unit engine roles lab guest"

# Ends with status 2: the command line is at fault, and nothing was done.
refuse() {
    echo "lab: $*" >&2
    exit 2
}

usage() {
    cat <<END
Usage: ./lab COMMAND

  up [--vm]       make a machine on which Docker runs on manuka, and a container on it; start it if
                  it is off
  shell [WORD...] a shell on that machine, or one command: ./lab shell docker info
  down            remove the machine, and the Docker engine that the lab started for it
  clean           remove what the lab downloaded and built: environments, engines, images, caches
  demo            see a container on manuka without a machine, on an engine that is gone afterwards
  test [PART...]  run the tests: lint, unit, engine, roles; or parts by name: these, and lab
                  (machines made by Molecule and Vagrant) and guest (another kernel in a VM)
  engines         fetch the engines of other Debian releases for the tests (140 MB)
  fuzz [SECONDS]  search for tars that break the unpacker (600; Python 3.11)
  lock            renew requirements/*.txt

./lab COMMAND --help describes one command, and does nothing else.

The machine is a container with systemd, on the Docker engine that answers here or, where none does,
on one of the lab's own. With --vm it is a virtual machine, made by Vagrant.

Variables: MACHINE_RELEASE  Debian's release on the machine: 11, 12 (the default) or 13; with --vm
                            Ubuntu's, too: see Vagrantfile
           MACHINE_IMAGE    an image of a machine with systemd and Python, to be pulled
           MACHINE_MIRROR   where Debian's packages come from, if no image can be pulled
           PYTHON           the Python of .venv and .venv-lab, 3.10 or later (python3)
           PYTHONS          the others that run the unit tests (3.7)
           MANUKA_ENGINES   the dockerd programs that run the engine tests, with : between
           WORKERS          how many tests run at a time (two for each processor, at most 8)
END
}

usage_of() {
    case $1 in
    up) cat <<END ;;
Usage: ./lab up [--vm]

Makes a machine on which Docker runs on manuka, or starts the one that is off, provisions it with
ansible/site.yml, and runs a container on it. A package is installed if its program is missing.

  --vm   a virtual machine, made by Vagrant, instead of a container with systemd

Variables: MACHINE_RELEASE, MACHINE_IMAGE, MACHINE_MIRROR, PYTHON; see ./lab help.
END
    shell) cat <<END ;;
Usage: ./lab shell [--] [WORD...]

Opens root's shell on the machine, or runs one command there, with its words as they are. The words
after the first belong to the command: ./lab shell ls --help is the help of ls.
END
    down) cat <<END ;;
Usage: ./lab down

Removes the machines that this checkout made, containers and virtual machines, with all that is on
them, and the Docker engine that the lab started for them. What was downloaded and built stays:
./lab clean removes it.
END
    clean) cat <<END ;;
Usage: ./lab clean

Removes what the lab downloaded and built in this checkout: .venv, .venv-*, .engines, .guest, .lab,
.fuzz, the tools' caches, and the images of machines in the Docker engine. It refuses while there is
a machine: ./lab down removes that. Debian packages stay.
END
    demo) cat <<END ;;
Usage: ./lab demo

Starts a Docker engine on manuka in namespaces of its own, runs a container in it, shows where its
files lie, and removes all of that.
END
    test) cat <<END ;;
Usage: ./lab test [PART...]

Runs the tests of each PART to its end; without one: lint, unit, engine and roles.

  lint     ruff, mypy --strict, shellcheck
  unit     each module, on the Python of .venv and on PYTHONS
  engine   real Docker engines on the real plugin, kills, and disks that fail
  roles    ansible-lint, yamllint, a syntax check
  lab      roles, and machines that they have made, by Molecule and Vagrant
  guest    quotas of xfs, and defaults of the kernel, in a virtual machine

Variables: PYTHON, PYTHONS, MANUKA_ENGINES, WORKERS; see ./lab help.
END
    engines) cat <<END ;;
Usage: ./lab engines

Fetches the Docker engines of other Debian releases (140 MB) into .engines, for ./lab test engine.
END
    fuzz) cat <<END ;;
Usage: ./lab fuzz [SECONDS]

Searches for tars that break the unpacker, for 600 seconds or SECONDS, with Python 3.11. What it
finds is left in .fuzz.
END
    lock) cat <<END ;;
Usage: ./lab lock

Renews requirements/*.txt: the newest versions that pyproject.toml and requirements/*.in allow.
END
    help) cat <<END ;;
Usage: ./lab help [COMMAND]

Describes the lab's commands, or one of them.
END
    *) cat <<END ;;
Usage: ./lab $1

Runs the part $1 of the tests, as ./lab test $1 does: see ./lab test --help.
END
    esac
}

# Whether WORD is one of the words that follow it.
is_among() {
    sought=$1
    shift
    for known; do
        [ "$known" != "$sought" ] || return 0
    done
    return 1
}

# Ends with the usage of VERB if one of its WORDs asks for it, and with an error if one of them is not
# for VERB. In `shell`, the first word that is no option ends the words for the lab.
check_words() {
    verb=$1
    shift
    # shellcheck disable=SC2086 # lists of names
    is_among "$verb" $verbs $parts || {
        usage >&2
        refuse "There is no command $verb."
    }
    for word; do
        case $word in
        -h | --help)
            usage_of "$verb"
            exit
            ;;
        --) break ;;
        *) [ "$verb" != shell ] || break ;;
        esac
    done
    options=on
    taken=0
    for word; do
        case $options:$word in
        on:--)
            options=off
            continue
            ;;
        on:--vm) [ "$verb" != up ] || continue ;;
        on:-*) refuse "./lab $verb has no option $word. See ./lab $verb --help." ;;
        esac
        taken=$((taken + 1))
        # shellcheck disable=SC2086 # lists of names
        case $verb in
        shell) return ;;
        test)
            is_among "$word" $parts || refuse "There is no test part '$word'. These are: $parts."
            continue
            ;;
        help)
            is_among "$word" $verbs $parts || refuse "There is no command $word. See ./lab help."
            [ $taken = 1 ] || refuse "./lab help describes one command at a time."
            continue
            ;;
        fuzz)
            case $word in
            *[!0-9]* | "" | 0*) refuse "./lab fuzz takes a number of seconds, not '$word'." ;;
            esac
            [ $taken != 1 ] || continue
            ;;
        esac
        refuse "./lab $verb does not take '$word'. See ./lab $verb --help."
    done
}
