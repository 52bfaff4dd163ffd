import SampleFiles
import Sigma
import SystemLibrary
import Testing

/// `sigma-serve` as a process: its options, what it says, and how it ends. What it answers is tested within a process (`SigmaServerTests`).
@Suite struct ServeCommandTests {
    /// A server that has said where it listens.
    private final class Running {
        let process: Subprocess
        let port: Int
        private var hasEnded = false

        init(_ options: [String], environment: [String: String] = [:]) throws {
            process = try Subprocess(
                "sigma-serve", ["--model", TestModels.demo, "--port", "0", "--threads", "1"] + options,
                environment: environment)
            let line = String(decoding: process.read(), as: UTF8.self)
            let port = try? #require(line.wholeMatch(of: /listening on http:\/\/127\.0\.0\.1:([0-9]+)\n/)?.1)
            guard let number = port.flatMap({ Int($0) }) else {
                close(process.output)
                Issue.record("it says \(line), and \(process.wait().errors)")
                throw SigmaError(.unavailable, "no server")
            }
            self.port = number
        }

        deinit {
            guard !hasEnded else { return }
            kill(process.pid, SIGKILL)
            close(process.output)
            _ = process.wait()
        }

        func reply(
            _ method: String, _ path: String, headers: [String: String] = [:], body: String? = nil
        ) throws -> HTTPReply {
            let connection = try RawConnection(port: port)
            let type = body == nil ? [:] : ["content-type": "application/json"]
            try connection.write(
                RawConnection.request(method, path, headers: headers.merging(type) { $1 }, body: body))
            return try HTTPReply(connection.readToEnd())
        }

        /// What it wrote to standard output since the first line, and its exit code.
        func end(_ signal: Int32) -> (output: [UInt8], code: Int32) {
            kill(process.pid, signal)
            hasEnded = true
            return (process.readToEnd(), process.wait().code)
        }
    }

    private static let chat =
        #"{"messages":[{"role":"user","content":"What is 12 + 35?"}],"temperature":0}"#

    @Test(arguments: [SIGTERM, SIGINT]) func signalsEndIt(_ signal: Int32) throws {
        let server = try Running([])
        #expect(try server.reply("GET", "/readyz").status == 200)
        let (output, code) = server.end(signal)
        #expect(code == 0 && output.isEmpty)
    }

    /// The same answer as `sigma-run`'s.
    @Test func answers() throws {
        let server = try Running(["--alias", "sum"])
        let reply = try server.reply("POST", "/v1/chat/completions", body: Self.chat)
        let answer = try reply.json()
        #expect(reply.status == 200 && answer["model"]?.string == "sum")
        let message = try #require(answer["choices"]?.array?[0]["message"])
        let run = try JSONRun(["--model", TestModels.demo, "--temperature", "0", "--prompt", "What is 12 + 35?"])
        #expect(message["content"]?.string == run.text("answer") && run.text("answer") == "12 + 35 = 47.")
        #expect(message["reasoning_content"]?.string == run.text("thinking"))
        #expect(try server.reply("GET", "/v1/models").json()["data"]?.array?.map { $0["id"]?.string } == ["sum"])
    }

    @Test func reasoningFields() throws {
        let named = try Running(["--reasoning-field", "reasoning"])
        let message = try named.reply("POST", "/v1/chat/completions", body: Self.chat).json()["choices"]?.array?[0][
            "message"]
        #expect(message?["reasoning"]?.string?.isEmpty == false && message?["reasoning_content"] == nil)
        let none = try Running(["--reasoning-field", "none"])
        let whole = try none.reply("POST", "/v1/chat/completions", body: Self.chat).json()["choices"]?.array?[0][
            "message"]
        #expect(whole?["reasoning"] == nil && whole?["reasoning_content"] == nil)
        #expect(whole?["content"]?.string?.contains("</think>") == true)
    }

    @Test func keysAndOrigins() throws {
        let file = try Scratch.file("keys.txt", "first \n\n \n second\n")
        for (options, environment, keys) in [
            (["--api-key", "one", "--api-key", "two"], [:], ["one", "two"]),
            (["--api-key-file", file], [:], ["first", "second"]), ([], ["SIGMA_API_KEY": "three"], ["three"]),
        ] as [([String], [String: String], [String])] {
            let server = try Running(options + ["--cors-origin", "https://chat.example"], environment: environment)
            for key in keys {
                #expect(
                    try server.reply("GET", "/v1/models", headers: ["authorization": "Bearer \(key)"]).status == 200)
            }
            for key in ["", "other", keys[0] + " "] {
                let reply = try server.reply("GET", "/v1/models", headers: ["x-api-key": key + "x"])
                #expect(reply.status == 401)
            }
            let allowed = try server.reply(
                "GET", "/v1/models", headers: ["x-api-key": keys[0], "origin": "https://chat.example"])
            #expect(allowed.headers["access-control-allow-origin"] == "https://chat.example")
            let other = try server.reply(
                "GET", "/v1/models", headers: ["x-api-key": keys[0], "origin": "https://x.example"])
            #expect(other.status == 403)
        }
    }

    @Test func busyPorts() throws {
        let server = try Running([])
        let second = try Subprocess.run("sigma-serve", ["--model", TestModels.demo, "--port", "\(server.port)"])
        #expect(
            second.code == 69 && second.output.isEmpty && second.errors.contains("\(server.port)"), "\(second.errors)")
    }

    @Test(
        arguments: [
            (["--host", "0.0.0.0"], 64), (["--port", "65536"], 64), (["--parallel", "0"], 64), (["--queue", "-1"], 64),
            (["--drain-timeout", "-1"], 64), (["--drain-timeout", "nan"], 64), (["--drain-timeout", "1e300"], 64),
            (["--reasoning-field", "x"], 64),
            (["--api-key-file", "/nonexistent/keys"], 66), (["--model", "/nonexistent/model"], 66),
            (["--memory", "1KiB"], 69),
        ] as [([String], Int32)])
    func refused(_ options: [String], _ code: Int32) throws {
        let model = options.contains("--model") ? [] : ["--model", TestModels.demo]
        let result = try Subprocess.run("sigma-serve", model + ["--port", "0"] + options)
        #expect(result.code == code && result.output.isEmpty && !result.errors.isEmpty, "\(result.errors)")
    }
}
