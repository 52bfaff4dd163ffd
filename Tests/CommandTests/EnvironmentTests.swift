import Foundation
import Testing

/// Whatever the environment and the process's limits say: an answer, or 69 and a line.
@Suite struct EnvironmentTests {
    static let arguments = ["--tokens", "5,6,7", "--max-tokens", "8", "--temperature", "0", "--threads", "2"]

    /// Settings of runtimes that compilers and libraries bring along.
    @Test(arguments: [
        "OMP_NUM_THREADS=", "OMP_NUM_THREADS=auto", "OMP_NUM_THREADS=junk", "OMP_NUM_THREADS=-1", "OMP_NUM_THREADS=0",
        "OMP_NUM_THREADS=1,2,3", "OMP_THREAD_LIMIT=1", "OMP_PROC_BIND=close", "OMP_PLACES={999}", "OMP_STACKSIZE=1",
        "OMP_STACKSIZE=junk", "OMP_DYNAMIC=true", "OMP_WAIT_POLICY=passive", "OMP_DISPLAY_ENV=verbose",
        "KMP_AFFINITY=verbose,compact", "KMP_SETTINGS=1", "KMP_BLOCKTIME=infinite", "KMP_DUPLICATE_LIB_OK=x",
        "OPENBLAS_NUM_THREADS=64", "OPENBLAS_VERBOSE=2", "OPENBLAS_CORETYPE=junk", "GOTO_NUM_THREADS=-3",
    ]) func settingsOfOtherRuntimes(setting: String) throws {
        let parts = setting.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        // The float model computes through OpenBLAS.
        for model in [TestModels.bare, TestModels.bareFloat] {
            let plain = try Subprocess.run("sigma-run", Self.arguments + ["--model", model])
            let changed = try Subprocess.run(
                "sigma-run", Self.arguments + ["--model", model], environment: [parts[0]: parts[1]])
            #expect(changed.code == 0 && changed.errors.isEmpty, "\(changed.errors)")
            #expect(changed.output == plain.output)
        }
    }

    /// Limits that a shell sets for the process, with `ulimit`.
    private func run(_ limit: String, _ arguments: [String]) throws -> Subprocess.Result {
        let command = try Subprocess.path(of: "sigma-run")
        return try Subprocess.run(
            "/bin/sh", ["-c", "ulimit \(limit) && exec \"$@\"", "sh", command, "--model", TestModels.demo] + arguments)
    }

    static let question = ["--prompt", "What is 347 + 586?", "--temperature", "0", "--thinking", "none"]

    // With fewer, the Swift runtime does not come as far as the command.
    @Test(arguments: [24, 32, 64, 100, 300, 1000, 8192]) func smallStacks(kilobytes: Int) throws {
        let result = try run("-s \(kilobytes)", Self.question + ["--threads", "2"])
        #expect(result.code == 0 && result.errors.isEmpty, "\(result.errors)")
        #expect(result.text.contains("933"))
    }

    @Test(arguments: ["-v", "-d"]) func littleMemory(option: String) throws {
        var codes: Set<Int32> = []
        // Addresses are taken by programs and libraries, too: with fewer they cannot even be loaded.
        let least = option == "-v" ? [24_000, 34_000, 36_000] : [6_000, 8_000, 12_000, 20_000]
        for kilobytes in least + [40_000, 60_000, 90_000, 150_000, 300_000, 2_000_000] {
            let result = try run("\(option) \(kilobytes)", Self.question + ["--threads", "2"])
            if result.code == 127, result.errors.contains("shared") { continue }
            codes.insert(result.code)
            #expect([0, 69].contains(result.code), "\(kilobytes): \(result.code) \(result.errors)")
            if result.code == 69 {
                #expect(
                    result.errors.hasPrefix("error: ") && result.errors.split(separator: "\n").count <= 2,
                    "\(result.errors)")
            } else {
                #expect(result.text.contains("933"))
            }
        }
        #expect(codes.contains(0))
    }

    @Test func moreThreadsThanTheSystemGives() throws {
        // 255 stacks of a mebibyte are more than that.
        let result = try run("-v 200000", Self.question + ["--threads", "256"])
        #expect(result.code == 69)
        #expect(result.errors.contains("256 threads") && !result.errors.contains("OMP"), "\(result.errors)")
    }

    @Test func moreThreadsThanProcessors() throws {
        let many = try Subprocess.run("sigma-run", ["--model", TestModels.demo, "--threads", "200"] + Self.question)
        #expect(many.code == 0 && many.text.contains("933"))
        #expect(many.errors.hasPrefix("warning: --threads 200 is more than the "), "\(many.errors)")
        #expect(many.errors.split(separator: "\n").count == 1)
        let one = try Subprocess.run("sigma-run", ["--model", TestModels.demo, "--threads", "1"] + Self.question)
        #expect(one.errors.isEmpty && one.output == many.output)
    }

    /// Where nothing is mounted at /proc. Namespaces need a kernel that allows them.
    @Test func withoutProc() throws {
        #if os(Linux)
            let command = try Subprocess.path(of: "sigma-run")
            let script = "umount -l /proc || exit 99; exec \"$@\""
            let result = try Subprocess.run(
                "/usr/bin/env",
                ["unshare", "-rm", "sh", "-c", script, "sh", command, "--model", TestModels.demo] + Self.question)
            if result.code == 99 || result.errors.contains("unshare") { try Test.cancel("no namespaces here") }
            #expect(result.code == 0 && result.text.contains("933"), "\(result.errors)")
        #endif
    }

    /// A prompt without end is refused when it is more than any context holds, long before it fills the memory.
    @Test func inputWithoutBound() throws {
        let path = Scratch.path("endless.txt")
        #expect(FileManager.default.createFile(atPath: path, contents: nil))
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        // A hole: it takes no disk.
        try file.truncate(atOffset: 1 << 32)
        for arguments in [[path], ["--prompt", "a", "--system-file", path]] {
            let result = try run("-v 1000000", arguments + ["--memory", "60MiB"])
            #expect(result.code == 65, "\(result.code) \(result.errors)")
            #expect(result.errors.contains("expected at most the") && result.errors.contains(path), "\(result.errors)")
        }
        try FileManager.default.removeItem(atPath: path)
    }
}
