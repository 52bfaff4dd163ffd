import Sigma

extension ChatTemplate {
    /// Compares how functions, calls and results are written, where the template knows functions.
    mutating func compareTools(_ nodes: [TemplateNode], _ bos: String) throws {
        guard let format else { return }
        let call = FunctionCall(name: "f", arguments: #"{"a": [1, true]}"#)
        func render(_ sample: [Turn], tools: [TemplateValue]) throws -> String {
            let text = try Self.render(
                nodes, sample.map { Self.message($0) }, tools: tools, bos: bos, thinks: true)
            guard !format.style.controlTokens.contains(bos), text.hasPrefix(bos) else { return text }
            return String(text.dropFirst(bos.count))
        }
        var called = Turn(.assistant, "A")
        called.calls = [call, call]
        var silent = Turn(.assistant, "")
        silent.calls = [call]
        let samples = [
            [Turn(.user, "U")],
            [Turn(.user, "U"), called, Turn(.tool, "R"), Turn(.tool, "S"), silent, Turn(.tool, "R\nR")],
            [Turn(.user, "U"), silent, Turn(.tool, "R"), Turn(.assistant, "B"), Turn(.user, "V")],
        ]
        do {
            guard try render(samples[0], tools: [Self.tool]) != render(samples[0], tools: []) else { return }
            let tokenizer = try Self.tokenizer(of: format.style)
            for sample in samples {
                let prompt = try Prompt(
                    turns: sample, system: "", tools: [Self.tool.json], thinks: true, format: format,
                    tokenizer: tokenizer)
                let ours = String(decoding: tokenizer.decode(prompt.tokens, specials: .named), as: UTF8.self)
                let theirs = try render(sample, tools: [Self.tool])
                guard let difference = Self.difference(ours, theirs) else { continue }
                differences.append("it writes functions otherwise: \(difference)")
                return
            }
        } catch let error as TemplateError {
            differences.append("what it makes of functions cannot be evaluated (\(error.reason))")
        }
    }

    private static var tool: TemplateValue {
        .map([
            ("type", .string("function")),
            (
                "function",
                .map([
                    ("name", .string("f")), ("description", .string("D")),
                    ("parameters", .map([("type", .string("object"))])),
                ])
            ),
        ])
    }

    private static func message(_ turn: Turn) -> TemplateValue {
        var members: [(key: String, value: TemplateValue)] = [
            ("role", .string(turn.role.rawValue)), ("content", .string(turn.text)),
        ]
        if !turn.calls.isEmpty {
            let arguments = TemplateValue.map([("a", .list([.integer(1), .bool(true)]))])
            members.append(
                (
                    "tool_calls",
                    .list(
                        turn.calls.map { call in
                            .map([
                                ("type", .string("function")),
                                ("function", .map([("name", .string(call.name)), ("arguments", arguments)])),
                            ])
                        })
                ))
        }
        return .map(members)
    }
}
