import Foundation
import Testing

@Suite struct BenchTests {
    @Test func everyCombinationIsOneObject() throws {
        let result = try Subprocess.run(
            "sigma-bench",
            [
                "--model", TestModels.bare, "--prompt", "0,8", "--generate", "3", "--depth", "0,300", "--kv-type",
                "f16,f32", "--repetitions", "2", "--threads", "1", "--format", "json",
            ])
        #expect(result.code == 0, "\(result.errors)")
        #expect(result.errors.isEmpty)
        let rows = try #require(
            try JSONSerialization.jsonObject(with: Data(result.output)) as? [[String: Any]])
        #expect(rows.count == 8)
        #expect(Set(rows.compactMap { $0["depth"] as? Int }) == [0, 300])
        for row in rows {
            func number(_ key: String) -> Double { (row[key] as? NSNumber)?.doubleValue ?? .nan }
            for key in [
                "generate_tps", "bytes_per_token", "bandwidth_gbs", "bandwidth_share", "read_bandwidth_gbs",
                "int8_peak_gmacs", "ceiling_tps", "expert_cache_bytes", "peak_rss_bytes",
            ] { #expect(number(key) > 0, "\(key)") }
            #expect(number("generate_tps_sd") >= 0 && number("hit_rate") == 1 && number("stall_ms") == 0)
            #expect(row["backend"] as? String == "cpu" && row["memory_bytes"] is NSNull)
            let hasPrompt = row["prompt_tokens"] as? Int == 8
            for key in ["prompt_tps", "ttft_ms", "prompt_ceiling_tps"] {
                #expect(hasPrompt ? number(key) > 0 : row[key] is NSNull, "\(key)")
            }
        }
        // A deeper sequence reads more of the cache; 32 bits nearly twice as much of it as 16, which have scales.
        func bytes(_ depth: Int, _ type: String) -> Int {
            rows.first { $0["depth"] as? Int == depth && $0["kv_type"] as? String == type }?["bytes_per_token"] as? Int
                ?? 0
        }
        let (wide, narrow) = (bytes(300, "f32") - bytes(0, "f32"), bytes(300, "f16") - bytes(0, "f16"))
        #expect(narrow > 0 && wide < 2 * narrow && Double(wide) > 1.8 * Double(narrow), "\(wide), \(narrow)")
    }

    @Test func expertCachesAreMeasuredPlannedAndSimulated() throws {
        let bench = try Subprocess.run(
            "sigma-bench",
            [
                "--model", TestModels.bare, "--prompt", "4", "--generate", "6", "--repetitions", "1", "--threads", "1",
                "--memory", "1GiB", "--expert-cache", "auto,all", "--expert-prediction", "on", "--format", "json",
            ])
        #expect(bench.code == 0, "\(bench.errors)")
        let rows = try #require(try JSONSerialization.jsonObject(with: Data(bench.output)) as? [[String: Any]])
        #expect(rows.count == 2)
        for row in rows {
            #expect(row["memory_bytes"] as? Int == 1 << 30 && row["expert_prediction"] as? String == "on")
            let prefetched = try #require(row["prefetched_experts"] as? Int)
            #expect(row["foretold_experts"] as? Int == prefetched)
        }
        let plan = try Subprocess.run("sigma-bench", ["--model", TestModels.bare, "--memory", "1GiB", "--plan"])
        #expect(plan.code == 0)
        let text = String(decoding: plan.output, as: UTF8.self)
        for label in ["memory budget", "1.00 GiB", "dense weights", "keys and values", "expected speed"] {
            #expect(text.contains(label), "\(label)")
        }

        let trace = Scratch.path("run.trace")
        let run = try Subprocess.run(
            "sigma-run",
            [
                "--model", TestModels.bare, "--tokens", "1,2,3", "--max-tokens", "20", "--temperature", "1", "--seed",
                "1",
                "--expert-trace", trace,
            ])
        #expect(run.code == 0, "\(run.errors)")
        let simulated = try Subprocess.run(
            "sigma-bench",
            [
                "simulate", "--model", TestModels.bare, "--trace", trace, "--memory", "1GiB", "--disk-bandwidth", "1,2",
                "--compute-time", "10", "--policy", "lru,slru,lfu,belady", "--json",
            ])
        #expect(simulated.code == 0, "\(simulated.errors)")
        let results = try #require(
            try JSONSerialization.jsonObject(with: Data(simulated.output)) as? [[String: Any]])
        #expect(results.count == 8)
        for result in results {
            let speed = try #require((result["generate_tps"] as? NSNumber)?.doubleValue)
            let misses = try #require((result["miss_bytes_per_token"] as? NSNumber)?.doubleValue)
            let disk = try #require((result["disk_bandwidth_gbs"] as? NSNumber)?.doubleValue)
            #expect(abs(speed * (0.01 + misses / disk / 1e9) - 1) < 0.01)
        }
        let missing = try Subprocess.run("sigma-bench", ["simulate", "--model", TestModels.bare, "--trace", trace])
        #expect(missing.code == 64)
    }

    /// All that the process uses, the buffers that measure the machine included.
    @Test(arguments: [100, 160, 400]) func budgetsCountWhatMeasuresTheMachine(mebibytes: Int) throws {
        let result = try Subprocess.run(
            "sigma-bench",
            [
                "--model", TestModels.demo, "--memory", "\(mebibytes)M", "--prompt", "16", "--generate", "4",
                "--repetitions", "1", "--format", "json",
            ])
        #expect(result.code == 0, "\(result.errors)")
        let rows = try #require(try JSONSerialization.jsonObject(with: Data(result.output)) as? [[String: Any]])
        let peak = try #require(rows.first?["peak_rss_bytes"] as? Int)
        #expect(peak <= mebibytes << 20, "\(peak >> 20) MiB")
    }

    @Test func budgetsThatHaveNoRoomForMeasuring() throws {
        let result = try Subprocess.run("sigma-bench", ["--model", TestModels.demo, "--memory", "5MiB"])
        #expect(result.code == 69 && result.output.isEmpty)
        #expect(result.errors.contains("Raise --memory to "), "\(result.errors)")
    }

    @Test func tableAndCSV() throws {
        let arguments = [
            "--model", TestModels.bare, "--prompt", "4", "--generate", "0", "--repetitions", "1", "--threads", "1",
        ]
        let csv = String(
            decoding: try Subprocess.run("sigma-bench", arguments + ["--format", "csv"]).output, as: UTF8.self)
        let lines = csv.split(separator: "\n").map { $0.split(separator: ",", omittingEmptySubsequences: false) }
        #expect(lines.count == 2 && lines[0].count == lines[1].count && lines[0][0] == "prompt_tokens")
        let plot = Scratch.path("speed.svg")
        let table = try Subprocess.run("sigma-bench", arguments + ["--plot", plot])
        #expect(String(decoding: table.output, as: UTF8.self).contains("prompt tokens/s"))
        #expect(try String(contentsOfFile: plot, encoding: .utf8).hasPrefix("<svg"))
    }

    @Test(arguments: [
        (["--prompt", "0", "--generate", "0"], 64), (["--depth", "-1"], 64), (["--prompt", "1,x"], 64),
        (["--kv-type", "q5"], 64), (["--repetitions", "0"], 64), (["--model", "/nonexistent"], 66),
        (["--backend", "cuda"], 69), (["--memory", "1KiB"], 69), (["--expert-cache", "1KiB"], 69),
    ])
    func refused(_ arguments: [String], _ code: Int) throws {
        let model = arguments.contains("--model") ? [] : ["--model", TestModels.bare]
        let result = try Subprocess.run(
            "sigma-bench", model + arguments, environment: ["SIGMA_CUDA_DRIVER": "/nonexistent/libcuda.so"])
        #expect(Int(result.code) == code, "\(arguments): \(result.errors)")
        #expect(result.output.isEmpty && !result.errors.isEmpty)
    }
}
