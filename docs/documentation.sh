#!/usr/bin/env bash
# Writes the library's documentation catalogue, with what `import Sigma` brings of SigmaBase and SigmaGrammar, as a documentation archive
# into .build/documentation. Any warning is an error. Only the modules' interfaces are compiled, which takes seconds: no build is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
toolchain=$(dirname "$(readlink -f "$(command -v swift)")")
for tool in docc swift-symbolgraph-extract; do
    if [ ! -x "$toolchain/$tool" ]; then
        echo "documentation: there is no $tool in $toolchain; toolchains of https://www.swift.org/install have it" >&2
        exit 69
    fi
done
target=$("$toolchain/swiftc" -print-target-info | sed -n 's/.*"unversionedTriple": "\(.*\)".*/\1/p' | head -n 1)
modules=.build/documentation-modules
graphs=.build/documentation-symbols
rm -rf "$modules" "$graphs" .build/documentation
mkdir -p "$modules" "$graphs"

# SwiftPM writes this module map when it builds; CSigma and COpenBLAS have their own.
echo "module CCUDA { umbrella header \"$PWD/Sources/CCUDA/include/sigma_cuda.h\" export * }" > "$modules/module.modulemap"
include=(-I "$modules" -I Sources/CSigma/include -I Sources/COpenBLAS)
# In the order in which they depend on each other (Package.swift).
for module in SystemLibrary SigmaBase SigmaGrammar Sigma; do
    find "Sources/$module" -name '*.swift' -print0 | xargs -0 "$toolchain/swiftc" -emit-module -parse-as-library -swift-version 6 \
        -package-name sigma -module-name $module "${include[@]}" -o "$modules/$module.swiftmodule"
done

"$toolchain/swift-symbolgraph-extract" -module-name Sigma -target "$target" -minimum-access-level public \
    -skip-inherited-docs -experimental-allowed-reexported-modules=SigmaBase,SigmaGrammar "${include[@]}" -output-dir "$graphs"
"$toolchain/docc" convert Sources/Sigma/Sigma.docc --additional-symbol-graph-dir "$graphs" \
    --fallback-display-name Sigma --fallback-bundle-identifier sigma --output-path .build/documentation \
    --warnings-as-errors
