# Sourced by the other scripts, from the root of the repository: the Python of .venv, made and filled where it is absent.
# An active virtual environment is left as it is. PYTHON names the interpreter that makes .venv (default: python3).

python=.venv/bin/python

# prepare_environment REQUIREMENT MODULE...: makes .venv if need be, and installs REQUIREMENT into it unless the package
# and all the modules are there.
prepare_environment() {
    local requirement=$1
    shift
    if ! [ -x "$python" ]; then
        "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "Python 3.11 or newer is needed: set PYTHON to one" >&2
            exit 2
        }
        echo "making .venv"
        "${PYTHON:-python3}" -m venv .venv
    fi
    # -P: the package must be installed, not merely lie in the current folder. Nothing is imported: that takes seconds.
    if ! "$python" -P -c 'import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))' \
        ssl_ebm lightning "$@" 2>/dev/null; then
        echo "installing $requirement into .venv"
        "$python" -m pip install --quiet --editable "$requirement"
    fi
}
