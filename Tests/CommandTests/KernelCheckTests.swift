import Foundation
import Testing

/// The kernels of every level, compiled with a C program that checks them: for this machine, and for aarch64, which an emulator runs
/// as processors that differ in what they have. Kernels that promise the same bytes on all levels keep that across architectures.
@Suite struct KernelCheckTests {
    /// A tool of PATH.
    static func tool(_ name: String) -> String? {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        return folders.map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// The clang that came with Swift, else the first in PATH.
    static let clang: String? = {
        let besideSwift = tool("swift").map {
            URL(fileURLWithPath: $0).resolvingSymlinksInPath().deletingLastPathComponent().appendingPathComponent(
                "clang"
            ).path
        }
        if let besideSwift, FileManager.default.isExecutableFile(atPath: besideSwift) { return besideSwift }
        return tool("clang")
    }()

    static let forAArch64 = ["--target=aarch64-linux-gnu", "-static", "-fuse-ld=lld"]

    /// Why the check cannot be built for aarch64 and run here.
    static let missing: String? = {
        guard let clang else { return "there is no clang" }
        guard tool("qemu-aarch64") != nil else { return "there is no qemu-aarch64 (Debian: qemu-user)" }
        guard
            let source = try? Scratch.file(
                "probe.c", "#include <sys/auxv.h>\nint main(void) { return (int)getauxval(0); }\n"),
            let probe = try? Subprocess.run(clang, forAArch64 + [source, "-o", Scratch.path("probe")])
        else { return "clang does not start" }
        if probe.code == 0 { return nil }
        return "clang cannot build for aarch64 (Debian: libc6-dev-arm64-cross, libgcc-12-dev-arm64-cross): "
            + (probe.errors.split(separator: "\n").first.map(String.init) ?? "")
    }()

    /// The program, with `options` for the compiler.
    static func build(_ options: [String]) throws -> String {
        let folders = ["Sources/CSigma", "Tests/KernelCheck"].map { "\(packageRoot)/\($0)" }
        let sources = try folders.flatMap { folder in
            try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".c") }.sorted()
                .map { "\(folder)/\($0)" }
        }
        let program = Scratch.path("check-kernels")
        let result = try Subprocess.run(
            try #require(clang),
            options + ["-std=gnu11", "-O2", "-I", "\(folders[0])/include"] + sources + [
                "-o", program, "-lm", "-lpthread",
            ])
        try #require(result.code == 0, "\(result.errors)")
        return program
    }

    /// What a run reported: the checksum of each kernel that promises the same bytes everywhere, by the level's name.
    static func promised(_ result: Subprocess.Result) -> [(level: String, checksums: [String: String])] {
        var levels: [(level: String, checksums: [String: String])] = []
        for line in result.lines where line.contains(" comparisons, ") {
            let level = String(line.prefix { $0 != " " })
            if levels.last?.level != level { levels.append((level, [:])) }
            // level, kernel (some words), count, "comparisons,", ..., who promises the same, checksum
            let words = line.split(separator: " ")
            let count = words.firstIndex(of: "comparisons,")! - 1
            guard words[words.count - 2] == "all" else { continue }
            levels[levels.count - 1].checksums[words[1..<count].joined(separator: " ")] = String(words.last!)
        }
        return levels
    }

    /// One run for both tests: compiling takes longest.
    static let here = Result { try Subprocess.run(try build([]), []) }

    @Test(.enabled(if: clang != nil, "there is no clang")) func everyLevelOfThisMachine() throws {
        let result = try Self.here.get()
        #expect(result.code == 0, "\(result.text)\(result.errors)")
        #expect(Self.promised(result).first?.level == "portable")
    }

    @Test(.enabled(if: missing == nil, "\(missing ?? "")"))
    func everyLevelOfAArch64() throws {
        let emulator = try #require(Self.tool("qemu-aarch64"))
        let program = try Self.build(Self.forAArch64)
        let here = Self.promised(try Self.here.get()).last!.checksums
        // Neither, dot products, and matrix products too.
        for (processor, expected) in [
            ("cortex-a53", ["portable"]), ("neoverse-n1", ["portable", "neon"]), ("max", ["portable", "neon", "i8mm"]),
        ] {
            let result = try Subprocess.run(emulator, ["-cpu", processor, program])
            #expect(result.code == 0, "\(processor): \(result.text)\(result.errors)")
            let levels = Self.promised(result)
            #expect(levels.map(\.level) == expected)
            for (level, checksums) in levels {
                #expect(checksums.count >= 8)
                // Without fused products, this machine makes no promise.
                if !here.isEmpty { #expect(checksums == here, "\(level) on \(processor)") }
            }
        }
    }
}
