#!/usr/bin/env bash
# Builds README's library example as a package of its own, which depends on a tagged version of this one by its URL, and runs it on the
# demo model. Everything happens in .build/consumer; what was built stays there for the next time.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
work=$root/.build/consumer
mkdir -p "$work/caches"

# The files as they are now, committed or not, in a repository with one version.
rm -rf "$work/sigma"
mkdir -p "$work/sigma"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    # What is deleted but not yet committed as deleted is listed too.
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done | tar --create --null --files-from - | tar --extract --directory "$work/sigma"
export GIT_AUTHOR_NAME=consumer GIT_AUTHOR_EMAIL=consumer@example.org
export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
git -C "$work/sigma" init --quiet --initial-branch main
git -C "$work/sigma" add --all
git -C "$work/sigma" -c commit.gpgsign=false commit --quiet --message "This version"
git -C "$work/sigma" -c tag.gpgsign=false tag 0.1.0

# The consumer, with the example that begins with `import Sigma` in README.
rm -rf "$work/package/Sources" "$work/package/Package.swift" "$work/package/Package.resolved"
mkdir -p "$work/package"
cp Tests/Consumer/Package.swift "$work/package/"
mkdir -p "$work/package/Sources/Ask"
awk '/^```swift$/ { text = ""; inside = 1; next }
     /^```$/ { if (inside && text ~ /^import Sigma\n/) { printf "%s", text; found = 1; exit } inside = 0; next }
     inside { text = text $0 "\n" }
     END { if (!found) exit 1 }' README.md > "$work/package/Sources/Ask/main.swift"

# A version that was seen before with other contents would be refused: nothing of it is remembered.
rm -rf "$work/package/.build/repositories" "$work/package/.build/checkouts" "$work/package/.build/workspace-state.json"
export SIGMA_URL="file://$work/sigma"
swift build --package-path "$work/package" \
    --cache-path "$work/caches" --security-path "$work/security" --config-path "$work/configuration" \
    --disable-dependency-cache --resolver-fingerprint-checking warn
output=$("$work/package/.build/debug/Ask")
echo "$output"
case $output in
    *933*47*) ;;
    *)
        echo "Tests/Consumer: the example answers wrongly" >&2
        exit 1
        ;;
esac
# It takes nothing that only the commands and the server need.
others=$(ls "$work/package/.build/checkouts" | grep -v '^sigma$' || true)
if [ -n "$others" ]; then
    echo "Tests/Consumer: fetched beside sigma: $others" >&2
    exit 1
fi
