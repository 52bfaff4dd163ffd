#!/usr/bin/env bash
# Unpacks what `make dist` made in a bare Debian root without Swift, and uses it there: commands, server, manual pages, completions. Needs
# superuser's rights. The root is the folder that is named, or .build/bare-root, which debootstrap makes if it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(realpath -m "${1:-.build/bare-root}")
tarball=$(ls .build/dist/sigma-*.tar.gz)
version=$(basename "$tarball" | sed 's/^sigma-\([0-9.]*\)-.*/\1/')
if [ ! -x "$root/bin/bash" ]; then
    debootstrap --variant=minbase --include=man-db,bash-completion,zsh,fish bookworm "$root"
fi
rm -rf "$root/opt/sigma"
mkdir -p "$root/opt/sigma"
tar --extract --gzip --no-same-owner --strip-components 1 --directory "$root/opt/sigma" --file "$tarball"

cat > "$root/opt/check.sh" <<'CHECK'
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
said() { echo "ok: $*"; }
commands="sigma-run sigma-convert sigma-eval sigma-bench sigma-serve"
command -v swift > /dev/null && fail "there is a Swift"

for command in $commands; do
    ldd "/opt/sigma/bin/$command" | grep -E 'not found|swift|Foundation' && fail "$command wants other libraries"
    [ "$($command --version)" = "$VERSION" ] || fail "$command --version"
    $command --help > /dev/null || fail "$command --help"
done
said "five commands of version $VERSION need: $(ldd /opt/sigma/bin/sigma-serve | awk '{ print $1 }' | xargs)"

answer=$(sigma-run --temperature 0 --prompt "What is 347 + 586?" 2> /dev/null)
case $answer in *933*) said "sigma-run: $answer" ;; *) fail "sigma-run says: $answer" ;; esac
sigma-convert --inspect /opt/sigma/share/sigma/demo.gguf --verify > /dev/null || fail "sigma-convert --inspect --verify"
sigma-convert --synthetic sigma-moe-tiny /tmp/small.gguf --layers 1 2> /dev/null && rm /tmp/small.gguf || fail "sigma-convert --synthetic"
said "sigma-convert"
sigma-eval task --count 2 --no-direct --json > /tmp/task.json || fail "sigma-eval task"
said "sigma-eval task: $(head -c 120 /tmp/task.json)"
sigma-bench --prompt 16 --generate 16 --repetitions 1 --format csv > /dev/null || fail "sigma-bench"
said "sigma-bench"

sigma-serve --port 0 > /tmp/serve 2> /tmp/serve.log &
server=$!
for _ in $(seq 300); do grep -q listening /tmp/serve && break; sleep 0.2; done
port=$(sed -n 's/.*:\([0-9]*\)$/\1/p' /tmp/serve)
[ -n "$port" ] || fail "sigma-serve does not listen: $(cat /tmp/serve.log)"
body='{"temperature":0,"messages":[{"role":"user","content":"What is 347 + 586?"}]}'
exec 3<> "/dev/tcp/127.0.0.1/$port"
printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' \
    "$port" "${#body}" "$body" >&3
reply=$(cat <&3)
case $reply in *"200 OK"*933*) said "sigma-serve answers" ;; *) fail "sigma-serve: $reply" ;; esac
kill -TERM $server
wait $server || fail "sigma-serve ends with $?"
said "sigma-serve drains"

for command in $commands; do
    page=$(man -w $command) || fail "there is no manual page of $command"
    [ "$page" = "/opt/sigma/share/man/man1/$command.1" ] || fail "$command's manual page is $page"
    MANWIDTH=100 man --warnings $command > /tmp/page 2> /tmp/warnings || fail "man $command"
    [ ! -s /tmp/warnings ] || fail "man $command warns: $(head -3 /tmp/warnings)"
    grep -q -- --help /tmp/page || fail "$command's manual page has no options"
done
said "manual pages, found by way of PATH, without warnings"

cat > /tmp/complete.bash <<'BASH'
source /usr/share/bash-completion/bash_completion
source "/opt/sigma/share/bash-completion/completions/$1"
COMP_WORDS=("$1" --mem) COMP_CWORD=1 COMP_LINE="$1 --mem" COMP_POINT=$((${#1} + 6)) COMP_TYPE=9
function=$(complete -p "$1" | sed 's/.*-F \([^ ]*\).*/\1/')
$function "$1" --mem "$1"
echo "${COMPREPLY[@]}"
BASH
for command in sigma-run sigma-serve; do
    offered=$(bash /tmp/complete.bash $command 2>&1)
    [ "$(echo $offered)" = "--memory" ] || fail "bash completes $command --mem by: $offered"
done
for command in $commands; do
    bash -n "/opt/sigma/share/bash-completion/completions/$command" || fail "bash completion of $command"
    if command -v zsh > /dev/null; then zsh -n "/opt/sigma/share/zsh/site-functions/_$command" || fail "zsh completion of $command"; fi
    if command -v fish > /dev/null; then
        fish --no-execute "/opt/sigma/share/fish/vendor_completions.d/$command.fish" || fail "fish completion of $command"
    fi
done
if command -v fish > /dev/null; then
    offered=$(fish -c 'source /opt/sigma/share/fish/vendor_completions.d/sigma-run.fish; complete -C "sigma-run --mem"' | cut -f 1)
    [ "$offered" = "--memory" ] || fail "fish completes sigma-run --mem by: $offered"
fi
said "completions for bash, zsh and fish"
CHECK
# /proc and /dev as on any running system, in a mount name space that goes when this ends.
unshare --mount sh -euc '
    mkdir -p "$1/proc" "$1/dev"
    mount --rbind /proc "$1/proc"
    mount --rbind /dev "$1/dev"
    exec chroot "$1" /usr/bin/env -i PATH=/opt/sigma/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 VERSION="$2" bash /opt/check.sh
' sh "$root" "$version"
