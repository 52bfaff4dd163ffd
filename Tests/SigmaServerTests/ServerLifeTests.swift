import SampleFiles
import Sigma
import SigmaRequests
import SigmaServer
import SystemLibrary
import Testing

/// Limits, strangers, clients that vanish, and the end.
@Suite struct ServerLifeTests {
    @Test func statusPages() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            #expect(try await server.get("/health").status == 200)
            #expect(try await server.get("/readyz").status == 200)
            _ = try await server.chat(#""max_tokens":3,"thinking_budget":0"#)
            let metrics = try await server.get("/metrics")
            #expect(metrics.headers["content-type"]?.hasPrefix("text/plain; version=0.0.4") == true)
            for name in [
                "vllm:num_requests_running 0", "vllm:num_requests_waiting 0", "vllm:generation_tokens_total 3",
            ] {
                #expect(metrics.text.contains(name + "\n"), "\(name)")
            }
            #expect(metrics.text.contains("vllm:time_to_first_token_seconds_bucket{le=\"+Inf\"} 1\n"))
            #expect(metrics.text.contains("sigma_http_requests_total{path=\"/health\",status=\"200\"} 1\n"))
        }
    }

    @Test func whatIsNotThere() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            for (method, path) in [("GET", "/v1/nothing"), ("DELETE", "/v2"), ("GET", "/../etc/passwd")] {
                let reply = try await server.send(method, path, headers: [:], body: nil)
                #expect(reply.status == 404 && reply.error?["message"]?.string != nil, "\(path): \(reply.text)")
            }
            for (method, path, allowed) in [
                ("GET", "/v1/chat/completions", "POST"), ("GET", "/v1/messages", "POST"),
                ("PUT", "/health", "GET, HEAD"), ("DELETE", "/v1/models/demo", "GET, HEAD"),
                ("PATCH", "/", "GET, HEAD"),
            ] {
                let reply = try await server.send(method, path, headers: [:], body: nil)
                #expect(reply.status == 405 && reply.headers["allow"] == allowed, "\(path): \(reply.text)")
            }
            let head = try await server.send("HEAD", "/health", headers: [:], body: nil)
            #expect(head.status == 200 && head.text.isEmpty)
        }
    }

    @Test func badBodies() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let deep = String(repeating: "[", count: 100) + String(repeating: "]", count: 100)
            for (body, status) in [
                ("", 400), ("{", 400), ("[]", 400), (#"{"messages":[]}"#, 400), (deep, 400),
                (LiveServer.body(#""temperature":-1"#), 400), (LiveServer.body(#""tools":[{}]"#), 400),
                (#"{"messages":"\#(String(repeating: "x", count: 9 << 20))"}"#, 413),
            ] {
                let reply = try await server.post("/v1/chat/completions", body)
                #expect(reply.status == status, "\(body.prefix(60)): \(reply.text.prefix(200))")
                #expect(reply.error?["message"]?.string?.isEmpty == false)
            }
            let reply = try await server.post(
                "/v1/chat/completions", LiveServer.body(""), headers: ["content-type": "text/plain"])
            #expect(reply.status == 415)
        }
    }

    @Test func aPromptThatCanNeverFitIsRefusedWithTheNumbers() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let limit = server.engine.positionLimit(kvType: .f16)
            let body = #"{"prompt":\#([Int](repeating: 65, count: limit + 5))}"#
            let error = try await server.post("/v1/completions", body).error
            #expect(error?["code"]?.string == "context_length_exceeded")
            #expect(error?["n_prompt_tokens"]?.integer == Int64(limit + 5) && error?["n_ctx"]?.integer == Int64(limit))
        }
    }

    // MARK: - Strangers

    @Test func keys() async throws {
        try await LiveServer.with({ $0.keys = ["secret", "other"] }) { (server) async throws -> Void in
            #expect(try await server.get("/health").status == 200)
            #expect(try await server.get("/readyz").status == 200)
            for headers in [
                [:], ["authorization": "Bearer secre"], ["authorization": "Bearer secretsecret"], ["x-api-key": ""],
            ] {
                for path in ["/v1/models", "/metrics", "/tokenizer_info"] {
                    #expect(try await server.get(path, headers: headers).status == 401, "\(headers) \(path)")
                }
            }
            for headers in [
                ["authorization": "Bearer secret"], ["authorization": "bearer other"], ["x-api-key": "secret"],
            ] {
                #expect(try await server.get("/v1/models", headers: headers).status == 200)
            }
        }
    }

    @Test func hostsAndOrigins() async throws {
        try await LiveServer.with({ $0.origins = ["https://chat.example"] }) { (server) async throws -> Void in
            #expect(try await server.get("/v1/models", headers: ["host": "evil.example"]).status == 403)
            for host in ["127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example"] {
                let page = ["host": host, "origin": "http://\(host)"]
                #expect(try await server.get("/v1/models", headers: page).status == 403)
            }
            for host in ["localhost:\(server.port)", "127.0.0.2", "[::1]:\(server.port)"] {
                #expect(try await server.get("/v1/models", headers: ["host": host]).status == 200)
            }
            #expect(try await server.get("/v1/models", headers: ["origin": "https://evil.example"]).status == 403)
            #expect(try await server.get("/v1/models", headers: ["origin": "null"]).status == 403)
            let allowed = try await server.get("/v1/models", headers: ["origin": "https://chat.example"])
            #expect(allowed.headers["access-control-allow-origin"] == "https://chat.example")
            #expect(allowed.headers["access-control-allow-credentials"] == nil)
            let refused = try await server.post(
                "/v1/completions", "{}", headers: ["origin": "https://chat.example"])
            #expect(refused.status == 400)
            #expect(refused.headers["access-control-allow-origin"] == "https://chat.example")
            #expect(refused.headers["access-control-expose-headers"]?.contains("retry-after") == true)
            let preflight = try await server.send(
                "OPTIONS", "/v1/chat/completions",
                headers: [
                    "origin": "https://chat.example", "access-control-request-headers": "x-stainless-lang,x-api-key",
                ], body: nil)
            #expect(preflight.status == 204)
            #expect(preflight.headers["access-control-allow-headers"] == "x-stainless-lang,x-api-key")
            #expect(preflight.headers["access-control-allow-origin"] == "https://chat.example")
        }
    }

    // MARK: - Limits

    @Test func theRequestBeyondTheQueueIsToldWhenToComeAgain() async throws {
        try await LiveServer.with({
            $0.parallel = 1
            $0.queuedRequests = 1
        }) { (server) async throws -> Void in
            let body = server.endlessBody
            var running: [RawConnection] = []
            for _ in 0..<2 {
                let connection = try RawConnection(port: server.port)
                try connection.write(
                    RawConnection.request(
                        "POST", "/v1/completions", headers: ["content-type": "application/json"], body: body))
                #expect(try await onThread { try !connection.read().isEmpty })
                running.append(connection)
            }
            let refused = try await server.post("/v1/completions", #"{"prompt":"b"}"#)
            #expect(refused.status == 429)
            #expect(refused.headers["retry-after"].flatMap { Int($0) } ?? 0 > 0)
            for connection in running { connection.close() }
            try await server.becomesIdle()
            #expect(try await server.post("/v1/completions", #"{"prompt":"b","max_tokens":1}"#).status == 200)
        }
    }

    @Test func slowHeadsAndBodiesAreNotWaitedFor() async throws {
        try await LiveServer.with({
            $0.headSeconds = 0.3
            $0.bodySeconds = 0.3
        }) { (server) async throws -> Void in
            for start in [
                "", "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n",
                "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{",
            ] {
                let connection = try RawConnection(port: server.port)
                try connection.write(Array(start.utf8))
                // Closed by the server; a reset is an end, too.
                do { _ = try await onThread { try connection.readToEnd() } } catch let failure as RawConnection.Failure
                {
                    #expect(failure.code == ECONNRESET, "\(failure)")
                }
            }
            #expect(try await server.get("/health").status == 200)
        }
    }

    /// Names that look like an address are anyone's.
    @Test func whatIsLoopback() {
        var configuration = ServerConfiguration()
        for (host, isLoopback) in [
            ("127.0.0.1", true), ("127.1.2.3", true), ("localhost", true), ("::1", true), ("127.example.org", false),
            ("127.0.0.1.example.org", false), ("0.0.0.0", false), ("10.0.0.1", false), ("127.1", false), ("", false),
        ] {
            configuration.host = host
            #expect(configuration.isLoopback == isLoopback, "\(host)")
        }
    }

    /// A client that sends the head first, and the body once it may.
    @Test func bodiesThatAreAskedFor() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let body = #"{"prompt":"a","max_tokens":1}"#
            let request = RawConnection.request(
                "POST", "/v1/completions",
                headers: ["content-type": "application/json", "expect": "100-continue"], body: body)
            let port = server.port
            try await onThread {
                let connection = try RawConnection(port: port)
                try connection.write(Array(request.dropLast(body.utf8.count)))
                let interim = String(decoding: try connection.read(), as: UTF8.self)
                #expect(interim.hasPrefix("HTTP/1.1 100 ") && interim.hasSuffix("\r\n\r\n"))
                try connection.write(Array(body.utf8))
                #expect(try HTTPReply(connection.readToEnd()).status == 200)
            }
        }
    }

    /// Until then it holds its place.
    @Test func whoReadsNothingOfItsAnswerIsCutOff() async throws {
        try await LiveServer.with({
            $0.parallel = 1
            $0.unreadSeconds = 0.5
        }) { (server) async throws -> Void in
            let connection = try RawConnection(port: server.port, receiveBuffer: 4096)
            try connection.write(
                RawConnection.request(
                    "POST", "/v1/completions", headers: ["content-type": "application/json"],
                    body: server.endlessBody.dropLast() + #","logprobs":100}"#))
            #expect(try await server.post("/v1/completions", #"{"prompt":"b","max_tokens":1}"#).status == 200)
            connection.close()
        }
    }

    @Test func whatIsKeptUntilItIsWholeHasALimit() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let members = #""prompt":"a","logprobs":500,"n":16"#
            let refused = try await server.post("/v1/completions", #"{\#(members),"max_tokens":600}"#)
            #expect(refused.status == 400 && refused.error?["param"]?.string == "logprobs")
            let fewer = try await server.post("/v1/completions", #"{\#(members),"max_tokens":2}"#)
            #expect(fewer.status == 200, "\(fewer.text)")
        }
    }

    // MARK: - Clients that vanish

    /// Streams that are left at random moments, in every way, beside others that go on: those are what they are alone, and nothing is left.
    @Test func vanishedClients() async throws {
        try await LiveServer.with({ $0.parallel = 4 }) { (server) async throws -> Void in
            let members = #""temperature":0.7,"seed":9,"stream":true"#
            let alone = try await server.post("/v1/chat/completions", LiveServer.body(members)).events.count
            try await withThrowingTaskGroup(of: Int?.self) { group in
                for index in 0..<40 {
                    group.addTask {
                        if index % 5 == 0 {
                            return try await server.post("/v1/chat/completions", LiveServer.body(members)).events.count
                        }
                        try await onThread {
                            let connection = try RawConnection(port: server.port)
                            try connection.write(
                                RawConnection.request(
                                    "POST", "/v1/completions", headers: ["content-type": "application/json"],
                                    body: server.endlessBody))
                            for _ in 0..<(index % 7) { _ = try connection.read(atMost: 300) }
                            switch index % 3 {
                            case 0: connection.close()
                            case 1: connection.reset()
                            default:
                                connection.closeSending()
                                _ = try? connection.readToEnd()
                            }
                        }
                        return nil
                    }
                }
                for try await count in group where count != nil { #expect(count == alone) }
            }
            try await server.becomesIdle()
        }
    }

    // MARK: - The end

    /// A running request has its time, a new one is refused, and the server ends.
    @Test func draining() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            async let running = server.post("/v1/chat/completions", LiveServer.body(#""temperature":0,"stream":true"#))
            while server.engine.gauge.reading.work == 0 { try await Task.sleep(for: .milliseconds(1)) }
            server.shutDown()
            while (try? await server.get("/health")) != nil { try await Task.sleep(for: .milliseconds(1)) }
            #expect(try await running.events.last == "[DONE]")
        }
    }

    /// A server that leaves says so first, and answers until then.
    @Test func leaving() async throws {
        try await LiveServer.with({ $0.leavingSeconds = 3600 }) { (server) async throws -> Void in
            #expect(try await server.get("/readyz").status == 200)
            server.shutDown()
            while try await server.get("/readyz").status == 200 { try await Task.sleep(for: .milliseconds(1)) }
            let refusal = try await server.get("/readyz")
            #expect(refusal.status == 503 && refusal.headers["retry-after"] == "2")
            _ = try await server.chat(#""temperature":0"#)
            #expect(try await server.get("/health").status == 200)
        }
    }

    /// What is not done in time is cancelled, and its client hears why.
    @Test func whatDoesNotEndIsCancelled() async throws {
        try await LiveServer.with({ $0.drainSeconds = 0.2 }) { (server) async throws -> Void in
            async let running = server.post("/v1/completions", server.endlessBody)
            while server.engine.gauge.reading.work == 0 { try await Task.sleep(for: .milliseconds(1)) }
            server.shutDown()
            let last = try await running.events.last ?? ""
            #expect(try JSONValue.parse(last)["error"]?["message"]?.string?.isEmpty == false)
        }
    }
}

extension LiveServer {
    /// Asks for a stream that ends where the context does.
    var endlessBody: String {
        let biases = engine.stopTokens.sorted().map { "\"\($0)\":-100" }.joined(separator: ",")
        return #"{"prompt":"a","temperature":1,"seed":5,"max_tokens":1000000,"stream":true,"logit_bias":{\#(biases)}}"#
    }

    /// Waits until the engine has no work.
    func becomesIdle() async throws {
        for _ in 0..<2000 where engine.gauge.reading.work > 0 { try await Task.sleep(for: .milliseconds(5)) }
        #expect(engine.gauge.reading.work == 0)
    }
}
