#!/usr/bin/env bash
# The two commands on a fresh machine: a minimal Debian 12 with python3, python3-venv, make and git, and nothing else.
#
#     sudo tools/fresh_machine.sh                                  # make demo, then make test
#     sudo tools/fresh_machine.sh demo                             # one of them
#     sudo ARGS=tests/test_images.py tools/fresh_machine.sh test   # what `make test` takes
#     sudo ROOT=/var/tmp/debian tools/fresh_machine.sh             # keeps the system, so that the next run starts at once
#
# debootstrap and chroot need root; the project's commands run as an ordinary user. The last commit is cloned, so commit
# first. The Debian mirror is this machine's own (MIRROR=address takes another), and so are pip's settings.
set -euo pipefail

if [[ $EUID -ne 0 ]]; then
    echo "fresh_machine: run it as root: debootstrap and chroot need that" >&2
    exit 2
fi
if [[ -z ${FRESH_MACHINE_MOUNTS:-} ]]; then # in a mount namespace of its own, so that every mount ends with this script
    FRESH_MACHINE_MOUNTS=private exec unshare --mount --propagation private "$0" "$@"
fi

PROJECT=$(cd "$(dirname "$0")/.." && pwd)
PACKAGES=python3,python3-venv,make,git
TESTER=tester
WORK=$(mktemp -d)
KEEP=${ROOT:+yes}
ROOT=${ROOT:-$WORK/root}

mounts() { # below the system, the innermost first
    awk -v root="$ROOT/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | tac
}

clean_up() {
    [[ -z $KEEP ]] || return 0
    mounts | xargs --no-run-if-empty umount --lazy
    [[ -z $(mounts) ]] && rm --recursive --force "$ROOT" # never through a mount: what is bound in is this machine's
}
trap clean_up EXIT

make_system() {
    command -v debootstrap >/dev/null || { echo "fresh_machine: apt-get install debootstrap" >&2; exit 2; }
    local mirror=${MIRROR:-}
    if [[ -z $mirror ]]; then # the first Debian archive that apt knows here
        mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
            awk '$1 == "Debian" { print $2; exit }')
    fi
    [[ -n $mirror ]] || { echo "fresh_machine: apt knows no Debian archive here: MIRROR=address $0" >&2; exit 2; }
    debootstrap --variant=minbase --include="$PACKAGES" bookworm "$ROOT" "$mirror" >"$WORK/debootstrap.log" 2>&1 ||
        { tail --lines=20 "$WORK/debootstrap.log" >&2; exit 1; }
    chroot "$ROOT" useradd --create-home "$TESTER"
}

mount_devices() {
    mount -t proc proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    cp /etc/resolv.conf /etc/hosts "$ROOT/etc/"
}

# What pip is told on this machine: its files, its variables, and each file or folder that these name.
pip_variables() {
    env | grep --extended-regexp '^(PIP_[A-Z_]+|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(https?|HTTPS?|no|NO|all|ALL)_(proxy|PROXY))=' || true
}

carry_pip_settings() {
    local file files=() path
    for file in /etc/pip.conf /etc/xdg/pip/pip.conf ${PIP_CONFIG_FILE:+"$PIP_CONFIG_FILE"}; do
        [[ -f $file ]] && files+=("$file") && install -D --mode=644 "$file" "$ROOT$file"
    done
    for file in .config/pip/pip.conf .pip/pip.conf; do
        [[ -f $HOME/$file ]] && files+=("$HOME/$file") && install -D --mode=644 "$HOME/$file" "$ROOT/home/$TESTER/$file"
    done
    { pip_variables | cut --delimiter== --fields=2-; cat /dev/null "${files[@]}"; } |
        grep --only-matching --extended-regexp '(file://)?/[^[:space:],]+' | while read -r path; do
            case $path in # the files of an index lie beside its pages
                file://*) dirname "${path#file://}" ;;
                *) echo "$path" ;;
            esac
        done | sort --unique | while read -r path; do
            [[ -e $path && $path != / && ! $path -ef $ROOT$path ]] || continue # missing, or carried with its folder
            if [[ -d $path ]]; then mkdir --parents "$ROOT$path"; else install -D /dev/null "$ROOT$path"; fi
            mount --rbind --read-only "$path" "$ROOT$path"
        done
}

as_tester() { # with nothing of this machine's environment but what pip needs; the variables must survive `env -i`
    local variables=()
    mapfile -t variables < <(pip_variables)
    chroot --userspec="$TESTER:$TESTER" "$ROOT" /usr/bin/env -i \
        HOME="/home/$TESTER" USER="$TESTER" PATH=/usr/local/bin:/usr/bin:/bin "${variables[@]}" "$@"
}

clone_project() {
    git -C "$PROJECT" bundle create --quiet "$ROOT/home/$TESTER/project.bundle" HEAD
    as_tester sh -c 'cd && rm -rf project && git -c advice.detachedHead=false clone --quiet project.bundle project'
}

run_command() {
    local target=$1 log=$WORK/make_$1.log start=$SECONDS result=passed
    as_tester sh -c 'cd "$HOME/project" && exec make "$@"' make "$target" ${ARGS:+"ARGS=$ARGS"} >"$log" 2>&1 || result=FAILED
    if [[ $result == FAILED ]]; then tail --lines=40 "$log" >&2; fi
    echo "fresh_machine: make $target: $result after $((SECONDS - start)) s; $(tail --lines=1 "$log"); log: $log"
    [[ $result == passed ]]
}

[[ -e $ROOT/etc/debian_version ]] || make_system
mount_devices
carry_pip_settings
clone_project
[[ $# -gt 0 ]] || set -- demo test
code=0
for target in "$@"; do run_command "$target" || code=1; done
exit "$code"
