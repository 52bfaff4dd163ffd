import SigmaCommand
import Testing

/// Sizes and types as people write them.
@Suite struct SizeTests {
    @Test(
        arguments: [
            ("4G", 4 << 30), ("4g", 4 << 30), ("4GiB", 4 << 30), ("4 GiB", 4 << 30), ("4gib", 4 << 30),
            ("4GB", 4_000_000_000), ("512M", 512 << 20), ("512m", 512 << 20), ("512MiB", 512 << 20), ("1024K", 1 << 20),
            ("1024k", 1 << 20), ("1024KiB", 1 << 20), ("1 kb", 1000), ("2T", 2 << 40), ("1.5G", 3 << 29),
            ("0.5m", 1 << 19),
            ("4096", 4096), ("4096B", 4096), ("0", 0),
        ] as [(String, Int)]) func sizes(text: String, bytes: Int)
    {
        #expect(ByteSize(argument: text)?.bytes == bytes)
    }

    @Test(arguments: [
        "", "G", "GiB", "4X", "4GG", "4Gi", "4 ", "-1", "-4G", "4,5G", "1.5", "1e3", "0x10", "4G iB", " 4G", "٤G",
        "9999999T", "nan", "inf",
    ]) func noSizes(text: String) {
        #expect(ByteSize(argument: text) == nil)
    }

    @Test(arguments: [
        ("sigma-run", ["--memory", "4X", "--prompt", "a"]), ("sigma-run", ["--expert-cache", "some", "--prompt", "a"]),
        ("sigma-bench", ["--memory", "1G,2Q"]),
        ("sigma-bench", ["simulate", "--trace", "a", "--expert-cache", "much"]),
    ]) func theUnitsAreNamed(command: String, arguments: [String]) throws {
        let result = try Subprocess.run(command, arguments)
        #expect(result.code == 64)
        #expect(result.errors.contains("A size is a number of bytes, or has a unit"), "\(result.errors)")
    }

    @Test func typesInAnyCase() throws {
        let arguments = ["--model", TestModels.bare, "--tokens", "1,2,3", "--max-tokens", "4", "--temperature", "0"]
        let lower = try Subprocess.run("sigma-run", arguments + ["--kv-type", "q8_0", "--backend", "cpu"])
        let upper = try Subprocess.run("sigma-run", arguments + ["--kv-type", "Q8_0", "--backend", "CPU"])
        #expect(lower.code == 0 && upper.code == 0, "\(upper.errors)")
        #expect(lower.output == upper.output && !lower.output.isEmpty)
    }
}
