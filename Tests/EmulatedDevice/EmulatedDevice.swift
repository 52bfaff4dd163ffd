#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A driver and a run-time compiler on the host's memory (Tests/CUDAEmulation) with the kernels' own sources: one library that takes the place of
/// both `libcuda` and `libnvrtc`. The clang that came with Swift compiles it, once for each state of the sources.
package enum EmulatedDevice {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    private static let packageRoot = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }

    /// Why there is none here; nil: there is.
    package static let missing: String? = {
        #if os(Linux) && (arch(x86_64) || arch(arm64))
            return compiler == nil ? "there is no clang++" : nil
        #else
            return "the emulated device runs on Linux only"
        #endif
    }()

    private static let built = Result<String, any Error> { try build() }

    /// The library's path. Each caller that wants a device of its own, with its own memory and failures, copies it.
    package static func library() throws -> String { try built.get() }

    /// A tool of PATH.
    private static func tool(_ name: String) -> String? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        return path.split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
    }

    private static let compiler: String? = {
        if let swift = tool("swift").flatMap({ realpath($0, nil) }) {
            defer { free(swift) }
            let folder = String(cString: swift).split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 }
            if access(folder + "/clang++", X_OK) == 0 { return folder + "/clang++" }
        }
        return tool("clang++")
    }()

    private static func build() throws -> String {
        let folders = ["Sources/CCUDA/include", "Sources/CCUDA/kernels", "Tests/CUDAEmulation"].map {
            packageRoot + "/" + $0
        }
        let files = try folders.flatMap { folder in
            try FileManager.default.contentsOfDirectory(atPath: folder).sorted().map { folder + "/" + $0 }
        }.filter { file in [".h", ".cuh", ".cu", ".cpp"].contains { file.hasSuffix($0) } }
        let sources = folders[2]
        #if arch(x86_64)
            let machine = ["-march=native"]
        #else
            let machine: [String] = []
        #endif
        let options =
            ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden"] + machine
            + folders.flatMap { ["-I", $0] } + ["fibers", "driver", "kernels"].map { "\(sources)/\($0).cpp" }
            + ["-lpthread"]
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        func add(_ bytes: some Sequence<UInt8>) {
            for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        }
        for file in files { add(try Data(contentsOf: URL(fileURLWithPath: file))) }
        add(options.joined(separator: " ").utf8)
        let library =
            FileManager.default.temporaryDirectory.path + "/sigma-emulated-\(getuid())-\(String(hash, radix: 16)).so"
        if access(library, R_OK) == 0 { return library }

        guard let compiler else { throw Failure(description: missing ?? "there is no clang++") }
        let partial = library + ".\(getpid())"
        let code = try run(compiler, options + ["-o", partial])
        guard code == 0, rename(partial, library) == 0 else {
            throw Failure(description: "the emulated device was not built: \(compiler) ended with \(code)")
        }
        return library
    }

    private static func run(_ program: String, _ arguments: [String]) throws -> Int32 {
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) }
        defer { for word in words { free(word) } }
        words.append(nil)
        var pid = pid_t()
        // Threads of the test runner block signals, and a child would inherit that.
        var noSignals = sigset_t()
        sigemptyset(&noSignals)
        #if os(Linux)
            var attributes = posix_spawnattr_t()
        #else
            var attributes: posix_spawnattr_t?
        #endif
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setsigmask(&attributes, &noSignals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        let result = posix_spawn(&pid, program, nil, &attributes, words, environ)
        guard result == 0 else { throw Failure(description: "\(program) does not start") }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : -1
    }
}
