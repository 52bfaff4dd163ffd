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
        // A deeper sequence reads more of the cache; 32 bits twice as much of it as 16.
        func bytes(_ depth: Int, _ type: String) -> Int {
            rows.first { $0["depth"] as? Int == depth && $0["kv_type"] as? String == type }?["bytes_per_token"] as? Int
                ?? 0
        }
        #expect(bytes(300, "f32") - bytes(0, "f32") == 2 * (bytes(300, "f16") - bytes(0, "f16")))
        #expect(bytes(300, "f16") > bytes(0, "f16"))
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
        let result = try Subprocess.run("sigma-bench", model + arguments)
        #expect(Int(result.code) == code, "\(arguments): \(result.errors)")
        #expect(result.output.isEmpty && !result.errors.isEmpty)
    }
}
