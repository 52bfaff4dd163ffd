#!/usr/bin/env bash
# Checks and times the CUDA back end on this machine, and prints one table. Ten minutes at most.
#
#   Benchmarks/cuda.sh                  on a machine with a GPU
#   Benchmarks/cuda.sh --bundle FOLDER  writes all that another machine needs into a folder: this script, the static commands, the demo model.
#                                       There: FOLDER/cuda.sh. Neither network nor Swift is needed, only the driver and NVRTC.
#
# Environment:
#   SIGMA_BENCH_FOLDER  where the synthetic model (11.3 GB) is made and kept (TMPDIR, or /tmp)
#   SIGMA_BENCH_MODEL   a model file instead of the synthetic one
#   SIGMA_NVRTC         the library libnvrtc.so.N, if it is not where it is looked for
#   LLAMA_BENCH         llama.cpp's llama-bench, built with CUDA: it is then timed on the same weights
#   SIGMA_BENCH_SECONDS time limit (600)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
begin=$SECONDS
limit=${SIGMA_BENCH_SECONDS:-600}

say() { echo "$*" >&2; }
fail() { say "cuda.sh: $1"; exit "${2:-69}"; }
left() { echo $((limit - (SECONDS - begin))); }
# Runs a command with what is left of the time.
within() { local rest; rest=$(left); [ "$rest" -gt 5 ] || return 124; timeout "$rest" "$@"; }

# --- The commands: beside this script, or built here.
root=
[ -e "$here/../Package.swift" ] && root=$(cd "$here/.." && pwd)
build() {
    command -v swift > /dev/null || fail "the commands are not beside this script, and Swift is not here to build them"
    say "building the commands"
    for product in sigma-bench sigma-convert; do
        (cd "$root" && swift build -c release --traits Commands --static-swift-stdlib --scratch-path .build/static -Xlinker -s --product $product >&2) \
            || fail "$product was not built" 70
    done
}
find_commands() {
    if [ -x "$here/sigma-bench" ] && [ -x "$here/sigma-convert" ]; then
        bin=$here
    elif [ -n "$root" ]; then
        build
        bin=$root/.build/static/release
    else
        fail "sigma-bench and sigma-convert are not beside this script"
    fi
}

if [ "${1:-}" = --bundle ]; then
    [ $# = 2 ] && [ -n "$root" ] || fail "usage: Benchmarks/cuda.sh --bundle FOLDER" 64
    build
    mkdir -p "$2"
    install -m 755 "$0" "$root/.build/static/release/sigma-bench" "$root/.build/static/release/sigma-convert" "$2"
    "$root/.build/static/release/sigma-convert" "$root/Models/demo/checkpoint" "$2/demo.gguf" --type q8_0
    ls -l "$2" >&2
    exit 0
fi
[ $# = 0 ] || fail "usage: cuda.sh [--bundle FOLDER]" 64

# --- The device. Before anything is built.
if [ -z "${SIGMA_CUDA_DRIVER:-}" ]; then
    found=
    for node in /dev/nvidia[0-9]* /dev/dxg; do [ -e "$node" ] && found=$node; done
    [ -n "$found" ] || fail "there is no CUDA device on this machine"
fi
find_commands

# NVRTC where its installers put it: the toolkit, and the Python packages (PyTorch brings one).
find_nvrtc() {
    [ -z "${SIGMA_NVRTC:-}" ] || return 0
    local candidate sites known
    known=$(ldconfig -p 2> /dev/null || true)
    [[ $known =~ libnvrtc\.so\.(13|12|11\.2) ]] && return 0
    sites=$(python3 -c 'import site; print("\n".join(site.getsitepackages() + [site.getusersitepackages()]))' 2> /dev/null || true)
    for candidate in /usr/local/cuda*/lib64/libnvrtc.so.1[123]* \
        $(for site in $sites; do echo "$site"/nvidia/cu13/lib/libnvrtc.so.13 "$site"/nvidia/cuda_nvrtc/lib/libnvrtc.so.1[123]*; done); do
        case "$candidate" in *builtins* | *.alt.*) continue ;; esac
        if [ -r "$candidate" ]; then export SIGMA_NVRTC=$candidate; return 0; fi
    done
}
find_nvrtc

# --- The models.
demo=$here/demo.gguf
if [ ! -e "$demo" ] && [ -n "$root" ]; then
    demo=$root/Models/demo.gguf
    [ -e "$demo" ] || "$bin/sigma-convert" "$root/Models/demo/checkpoint" "$demo" --type q8_0 >&2
fi
say "checking the demo model against the CPU"
within "$bin/sigma-bench" check --model "$demo" --tokens 128 >&2 || exit 69

model=${SIGMA_BENCH_MODEL:-}
if [ -z "$model" ]; then
    model=${SIGMA_BENCH_FOLDER:-${TMPDIR:-/tmp}}/sigma-synthetic-q4_0.gguf
    if [ ! -e "$model" ]; then
        say "making the synthetic model: $model"
        within "$bin/sigma-convert" --synthetic sigma-moe-tiny "$model" --type q4_0 >&2 || fail "the synthetic model was not made"
    fi
fi
say "checking it against the CPU"
agreement="did not end in time"
if checked=$(within "$bin/sigma-bench" check --model "$model" --tokens 48 --json); then agreement="yes: $checked"; else agreement="NO: ${checked:-no result}"; fi

# --- The rows: work | target | options.
rows=(
    "generation, one stream, depth 0|1500|--prompt 0 --generate 256 --depth 0 --repetitions 5"
    "generation, depth 32768, f16|800|--prompt 0 --generate 64 --depth 32768 --repetitions 3"
    "generation, depth 32768, q8_0||--prompt 0 --generate 64 --depth 32768 --kv-type q8_0 --repetitions 3"
    "prompt of 512||--prompt 512 --generate 0 --repetitions 5"
    "prompt of 2048|80000|--prompt 2048 --generate 0 --repetitions 5"
    "generation, 64 sequences|20000|--prompt 0 --generate 64 --sequences 64 --repetitions 3"
    "generation, 4 GiB of experts on the device||--prompt 0 --generate 64 --expert-cache 4GiB --repetitions 2"
)
csv=$(mktemp)
trap 'rm -f "$csv"' EXIT
lines=()
for row in "${rows[@]}"; do
    IFS='|' read -r work target options <<< "$row"
    say "$work"
    # shellcheck disable=SC2086
    if within "$bin/sigma-bench" --model "$model" --backend cuda --format csv $options > "$csv"; then
        lines+=("$(awk -F, -v work="$work" -v target="${target:--}" '
            NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
            function value(name) { return $(column[name]) }
            {
                prompt = value("prompt_tps") != ""
                speed = prompt ? value("prompt_tps") : value("generate_tps")
                spread = prompt ? value("prompt_tps_sd") : value("generate_tps_sd")
                ceiling = prompt ? value("prompt_ceiling_tps") : value("ceiling_tps")
                printf "%s|%s|%.0f ± %.0f|%.0f|%.0f %%|%s|%s|%.0f", work, target, speed, spread, ceiling, 100 * speed / ceiling,
                    prompt ? "-" : sprintf("%.0f", value("bytes_per_token") / 1e6), prompt ? "-" : sprintf("%.0f", value("bandwidth_gbs")),
                    value("read_bandwidth_gbs")
            }' "$csv")")
        machine=$(awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
            { printf "%s, reads %.0f GB/s, int8 %.0f and fp32 %.0f GMAC/s", $(column["machine"]), $(column["read_bandwidth_gbs"]),
              $(column["int8_peak_gmacs"]), $(column["fp32_peak_gmacs"]) }' "$csv")
    else
        lines+=("$work|${target:--}|not measured|-|-|-|-|-")
    fi
done

# --- Beside llama.cpp, where it is.
if [ -n "${LLAMA_BENCH:-}" ]; then
    plain=${model%.gguf}-plain.gguf
    [ -e "$plain" ] || within "$bin/sigma-convert" --synthetic sigma-moe-tiny "$plain" --plain-gguf --type q4_0 >&2 || plain=
    if [ -n "$plain" ] && within "$LLAMA_BENCH" -m "$plain" -ngl 99 -fa 1 -p 2048 -n 128 -o csv > "$csv"; then
        while IFS= read -r line; do lines+=("$line"); done < <(awk -F'","' '
            NR == 1 { gsub(/"/, ""); n = split($0, names, ","); for (i = 1; i <= n; i++) column[names[i]] = i; next }
            { gsub(/"/, "", $NF); gsub(/^"/, "", $1)
              printf "llama.cpp, %s|-|%.0f ± %.0f|-|-|-|-|-\n", ($(column["n_gen"]) > 0 ? "generation" : "prompt of 2048"), $(column["avg_ts"]), $(column["stddev_ts"]) }' "$csv")
    else
        lines+=("llama.cpp|-|not measured|-|-|-|-|-")
    fi
fi

echo "${machine:-no row was measured}"
echo "model: $model"
echo "agrees with the CPU: $agreement"
{
    echo "work|target|tokens/s|ceiling|share|MB/token|GB/s|bandwidth GB/s"
    printf '%s\n' "${lines[@]}"
} | awk -F'|' '
    { for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i) }; columns = NF }
    END {
        for (row = 1; row <= NR; row++) {
            line = ""
            for (i = 1; i <= columns; i++) line = line sprintf(i == 1 ? "%-" width[i] "s" : "  %" width[i] "s", cell[row, i])
            print line
        }
    }'
say "$((SECONDS - begin)) s"
