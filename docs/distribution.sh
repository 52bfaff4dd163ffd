#!/usr/bin/env bash
# A tree that runs without Swift, and its tarball, in .build/dist: commands, demo model, manual pages, completions for bash, zsh and fish.
# Manual pages and completions are made from the commands' own help by swift-argument-parser. Needs Models/demo.gguf.
set -euo pipefail
cd "$(dirname "$0")/.."
commands=(sigma-run sigma-convert sigma-eval sigma-bench sigma-serve)
scratch=.build/static
for command in "${commands[@]}"; do
    swift build -c release --traits Server --static-swift-stdlib --scratch-path $scratch -Xlinker -s --product "$command"
done
swift build --package-path $scratch/checkouts/swift-argument-parser --scratch-path $scratch/manual --product generate-manual

# The commit's day, so that the same commit makes the same tree.
date=$(git log -1 --format=%cs 2> /dev/null || date +%F)
version=$($scratch/release/sigma-run --version)
name=sigma-$version-$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m)
tree=.build/dist/$name
rm -rf .build/dist
install -d "$tree"/{bin,share/sigma,share/man/man1,share/bash-completion/completions,share/zsh/site-functions,share/fish/vendor_completions.d}
for command in "${commands[@]}"; do
    install -m 755 $scratch/release/"$command" "$tree/bin"
    $scratch/manual/debug/generate-manual "$tree/bin/$command" --output-directory $scratch/manual --date "$date"
    awk -f docs/manual-page.awk $scratch/manual/"$command".1 $scratch/manual/"$command".1 > "$tree/share/man/man1/$command.1"
    "$tree/bin/$command" --generate-completion-script bash > "$tree/share/bash-completion/completions/$command"
    "$tree/bin/$command" --generate-completion-script zsh > "$tree/share/zsh/site-functions/_$command"
    "$tree/bin/$command" --generate-completion-script fish > "$tree/share/fish/vendor_completions.d/$command.fish"
done
install -m 644 Models/demo.gguf Models/demo/questions.jsonl "$tree/share/sigma"
install -m 644 LICENSE README.md CHANGELOG.md "$tree/share/sigma"
tar --create --gzip --sort=name --mtime "$date" --owner=0 --group=0 --numeric-owner --directory .build/dist --file ".build/dist/$name.tar.gz" "$name"
echo ".build/dist/$name.tar.gz"
