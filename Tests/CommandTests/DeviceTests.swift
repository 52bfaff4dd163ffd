import EmulatedDevice
import Foundation
import Testing

/// Which back end a command gets, and what it says where it gets another, on an emulated device.
@Suite(.enabled(if: EmulatedDevice.missing == nil, "\(EmulatedDevice.missing ?? "")"))
struct DeviceTests {
    private static func environment(_ more: [String: String] = [:]) throws -> [String: String] {
        let library = try EmulatedDevice.library.get()
        return [
            "SIGMA_CUDA_DRIVER": library, "SIGMA_NVRTC": library, "XDG_CACHE_HOME": Scratch.path("cache"),
            "SIGMA_EMULATED_MEMORY": "\(256 << 20)",
        ].merging(more) { $1 }
    }

    private static func run(_ backend: String, _ more: [String: String] = [:]) throws -> Subprocess.Result {
        try Subprocess.run(
            "sigma-run",
            [
                "--model", TestModels.bare, "--tokens", "1,2,3", "--max-tokens", "4", "--temperature", "0", "--backend",
                backend, "--json",
            ], environment: environment(more))
    }

    @Test func autoTakesTheDevice() throws {
        for backend in ["cuda", "auto"] {
            let result = try Self.run(backend)
            #expect(result.code == 0 && result.errors.isEmpty, "\(result.errors)")
            #expect(result.text.contains("\"backend\":\"cuda\""))
        }
        #expect(try Self.run("cpu").text.contains("\"backend\":\"cpu\""))
    }

    /// What is missing, and the words that say so.
    private static let reasons: [(String, [String: String], String)] = [
        ("an old device", ["SIGMA_EMULATED_CAPABILITY": "75"], "expected compute capability 8.0 or later, found 7.5"),
        ("no compiler", ["SIGMA_NVRTC": "/nonexistent/libnvrtc.so"], "SIGMA_NVRTC"),
        ("no driver where one was named", ["SIGMA_CUDA_DRIVER": "/nonexistent/libcuda.so"], "SIGMA_CUDA_DRIVER"),
        ("a library that is none", ["SIGMA_CUDA_DRIVER": "libm.so.6"], "cuInit"),
        ("too little memory", ["SIGMA_EMULATED_MEMORY": "65536"], "too little memory"),
        ("a driver that does not start", ["SIGMA_EMULATED_FAIL": "cuDevicePrimaryCtxRetain:1"], "does not start"),
        ("weights that do not arrive", ["SIGMA_EMULATED_FAIL": "cuMemcpyHtoDAsync_v2:1!"], "CUDA"),
    ]

    @Test(arguments: reasons.indices) func whatIsMissingIsSaid(index: Int) throws {
        let (_, environment, words) = Self.reasons[index]
        let refused = try Self.run("cuda", environment)
        #expect(refused.code == 69 && refused.output.isEmpty)
        #expect(refused.errors.hasPrefix("error: ") && refused.errors.contains(words), "\(refused.errors)")
        #expect((1...2).contains(refused.errors.split(separator: "\n").count))
        // The CPU takes its place, with one line.
        let other = try Self.run("auto", environment)
        #expect(other.code == 0 && other.text.contains("\"backend\":\"cpu\""))
        #expect(other.errors.hasPrefix("warning: ") && other.errors.contains(words), "\(other.errors)")
        #expect(other.errors.split(separator: "\n").count == 1)
    }

    @Test(arguments: [["SIGMA_EMULATED_DEVICES": "0"], ["SIGMA_CUDA_DRIVER": ""]])
    func machinesWithoutADeviceAreNothingToTalkAbout(environment: [String: String]) throws {
        // Where a real device is, it is found.
        let refused = try Self.run("cuda", environment)
        let isReal = environment["SIGMA_CUDA_DRIVER"] != nil && !refused.errors.contains("there is no CUDA d")
        guard !isReal else { return }
        #expect(refused.code == 69 && refused.errors.contains("there is no CUDA d"))
        let other = try Self.run("auto", environment)
        #expect(other.code == 0 && other.errors.isEmpty && other.text.contains("\"backend\":\"cpu\""))
    }

    @Test func aFailureInTheMiddleEndsTheRun() throws {
        let result = try Self.run("cuda", ["SIGMA_EMULATED_FAIL": "cuGraphLaunch:2"])
        #expect(result.code == 69)
        #expect(result.errors.contains("CUDA_ERROR_LAUNCH_FAILED"))
    }

    @Test func benchmarksSayWhatTheDeviceCanDo() throws {
        let result = try Subprocess.run(
            "sigma-bench",
            [
                "--model", TestModels.bare, "--prompt", "6", "--generate", "3", "--repetitions", "1", "--backend",
                "cpu,cuda", "--threads", "1", "--sequences", "1,2", "--kv-type", "f32", "--format", "json",
            ], environment: Self.environment(["SIGMA_EMULATED_MEMORY": "\(64 << 20)"]))
        #expect(result.code == 0, "\(result.errors)")
        let rows = try #require(
            try JSONSerialization.jsonObject(with: Data(result.output)) as? [[String: Any]])
        #expect(rows.map { $0["backend"] as? String } == ["cpu", "cpu", "cuda", "cuda"])
        #expect(rows.map { $0["sequences"] as? Int } == [1, 2, 1, 2])
        func number(_ row: Int, _ key: String) -> Double { (rows[row][key] as? NSNumber)?.doubleValue ?? .nan }
        for row in 2..<4 {
            #expect(rows[row]["machine"] as? String == "emulated device (sm_90)")
            for key in [
                "prompt_tps", "generate_tps", "bytes_per_token", "bandwidth_gbs", "read_bandwidth_gbs",
                "int8_peak_gmacs", "fp32_peak_gmacs", "ceiling_tps", "prompt_ceiling_tps",
            ] { #expect(number(row, key) > 0, "\(key)") }
        }
        // The same weights are read, and keys and values of the same size.
        #expect(number(0, "bytes_per_token") == number(2, "bytes_per_token"))
    }

    @Test func theDeviceIsCheckedAgainstTheCPU() throws {
        let result = try Subprocess.run(
            "sigma-bench", ["check", "--model", TestModels.demo, "--tokens", "20", "--json"],
            environment: Self.environment())
        #expect(result.code == 0, "\(result.errors)")
        let check = try #require(try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Any])
        #expect(check["same_bits"] as? Bool == true)
        #expect((check["comparable_positions"] as? Int ?? 0) > 0)
        let mean = try #require((check["kl_mean"] as? NSNumber)?.doubleValue)
        #expect(mean > 0 && mean < 1e-3)
    }

    @Test func plansSayWhereExpertsAre() throws {
        func plan(_ more: [String]) throws -> String {
            let result = try Subprocess.run(
                "sigma-bench", ["--model", TestModels.demo, "--backend", "cuda", "--plan"] + more,
                environment: Self.environment())
            #expect(result.code == 0, "\(result.errors)")
            return result.text
        }
        #expect(try plan([]).contains("all, on the device"))
        let slots = try plan(["--expert-cache", "1MiB"])
        #expect(slots.contains("all, in pinned memory of the host") && slots.contains("4 of 32 experts on the device"))
    }
}
