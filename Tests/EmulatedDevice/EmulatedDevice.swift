import Foundation

/// The package's folder.
package let packageRoot = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

/// A driver and a run-time compiler for tests: one library that takes the place of both, and runs the kernels' own sources on the processor.
///
/// It is compiled once for each test run, by the toolchain's own clang.
package enum EmulatedDevice {
    /// Why there is none; nil: there is.
    package static let missing: String? = Toolchain.clang == nil ? "there is no clang++" : nil

    /// Path of the library, for SIGMA_CUDA_DRIVER and SIGMA_NVRTC.
    package static let library = Result { () throws -> String in
        try Toolchain.link(
            "libemulated-cuda.so", ["fibers.cpp", "driver.cpp", "kernels.cpp"].map { "Tests/CUDAEmulation/\($0)" },
            options: ["-shared", "-fPIC", "-fvisibility=hidden"])
    }
}

/// The toolchain's clang, and what it makes.
package enum Toolchain {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// A folder for the files of this test run.
    package static let folder: String = {
        let path = NSTemporaryDirectory() + "sigma-cuda-tests-\(getpid())"
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        atexit { try? FileManager.default.removeItem(atPath: Toolchain.folder) }
        return path
    }()

    /// The clang++ that came with Swift, else the first in PATH; nil on systems whose libraries are not ELF files.
    package static let clang: String? = {
        #if os(Linux)
            let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
            let besideSwift = folders.map { "\($0)/swift" }.first { FileManager.default.isExecutableFile(atPath: $0) }
                .map { URL(fileURLWithPath: $0).resolvingSymlinksInPath().deletingLastPathComponent().path }
            return ([besideSwift].compactMap { $0 } + folders).map { "\($0)/clang++" }
                .first { FileManager.default.isExecutableFile(atPath: $0) }
        #else
            return nil
        #endif
    }()

    /// Compiles sources of the package side by side and links them to `name` in the folder.
    package static func link(_ name: String, _ sources: [String], options: [String]) throws -> String {
        guard let clang else { throw Failure(description: "there is no clang++") }
        // A load that is not aligned is an error on a device, too.
        var common = [
            "-O2", "-ffp-contract=off", "-fsanitize=alignment", "-fsanitize-trap=alignment", "-Wall", "-Wextra",
            "-Wno-unused-function", "-Wno-missing-field-initializers",
        ]
        common += ["Sources/CCUDA/include", "Sources/CCUDA/kernels", "Sources/CSigma/include", "Tests/CUDAEmulation"]
            .flatMap { ["-I", "\(packageRoot)/\($0)"] }
        #if arch(x86_64)
            // Halves and fused products without calls.
            common += ["-march=native"]
        #endif
        let output = "\(folder)/\(name)"
        var running: [(process: Process, errors: String)] = []
        var objects: [String] = []
        func start(_ arguments: [String]) throws -> (process: Process, errors: String) {
            let errors = "\(folder)/\(UUID().uuidString).errors"
            _ = FileManager.default.createFile(atPath: errors, contents: nil)
            let process = Process()
            process.executableURL = URL(fileURLWithPath: clang)
            process.arguments = arguments
            process.standardError = FileHandle(forWritingAtPath: errors)
            try process.run()
            return (process, errors)
        }
        func finish(_ item: (process: Process, errors: String)) throws {
            item.process.waitUntilExit()
            guard item.process.terminationStatus == 0 else {
                throw Failure(
                    description: (try? String(contentsOfFile: item.errors, encoding: .utf8)) ?? "clang++ failed")
            }
        }
        for source in sources {
            let object = "\(folder)/\(name)-\(objects.count).o"
            let language = source.hasSuffix(".c") ? ["-x", "c", "-std=gnu11"] : ["-std=c++17"]
            running.append(try start(language + common + options + ["-c", "\(packageRoot)/\(source)", "-o", object]))
            objects.append(object)
        }
        for item in running { try finish(item) }
        try finish(start(options + objects + ["-o", output, "-lpthread", "-lm"]))
        return output
    }

    /// Runs a program; its exit status (negative: a signal) and everything that it wrote.
    package static func run(_ program: String, _ arguments: [String] = []) throws -> (status: Int32, text: String) {
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        let isSignal = process.terminationReason == .uncaughtSignal
        return (
            isSignal ? -process.terminationStatus : process.terminationStatus, String(decoding: bytes, as: UTF8.self)
        )
    }
}
