#!/usr/bin/env bash
# The library's documentation catalogue as a documentation archive, with what `import Sigma` brings of SigmaBase. Any warning is an
# error. Needs a release build.
set -euo pipefail
cd "$(dirname "$0")/.."
toolchain=$(dirname "$(readlink -f "$(command -v swift)")")
target=$(swift -print-target-info | sed -n 's/.*"unversionedTriple": "\(.*\)".*/\1/p' | head -n 1)
graphs=.build/documentation-symbols
rm -rf "$graphs" .build/documentation
mkdir -p "$graphs"
"$toolchain/swift-symbolgraph-extract" -module-name Sigma -target "$target" -minimum-access-level public \
    -skip-inherited-docs -experimental-allowed-reexported-modules=SigmaBase -I .build/release/Modules \
    -I Sources/CSigma/include -I .build/release/CCUDA.build -I Sources/COpenBLAS -output-dir "$graphs"
"$toolchain/docc" convert Sources/Sigma/Sigma.docc --additional-symbol-graph-dir "$graphs" \
    --fallback-display-name Sigma --fallback-bundle-identifier sigma --output-path .build/documentation \
    --warnings-as-errors
