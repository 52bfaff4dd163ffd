import Sigma

extension ChatTemplate {
    /// How functions, calls and results are written, where the template knows functions.
    mutating func examineTools(_ rendering: Rendering) throws {
        guard let format, let dated = self.format(on: Rendering.sampleDay) else { return }
        let hint = "--override chat.tools=\(CallForm.names)"
        do {
            let user = [Rendering.message("user", Self.question)]
            guard
                try rendering.text(user, tools: [Self.tool], date: .sample) != rendering.text(user, date: .sample)
            else { return }
            guard var found = try description(rendering, format) else {
                differences.append(
                    "it describes functions in a way that is not known: they are described as Qwen's do (\(hint))")
                return
            }
            // As it was written, where it takes that; else the value that it is.
            let written = try? rendering.text(
                [Rendering.message("user", "U"), Self.message(Self.silent, asWritten: true)], tools: [Self.tool],
                date: .sample)
            found.rewritesArguments = written.map { !$0.contains(Self.call.arguments) } ?? true
            var difference: String?
            for form in CallForm.allCases {
                var tools = found
                tools.calls = form
                if form == .taggedXML { tools.rewritesArguments = false }
                guard let other = try self.difference(tools, found.rewritesArguments, rendering, dated) else {
                    self.tools = tools
                    return
                }
                // Of those that differ, the one with the same beginning of a call.
                if form == Self.form(in: other.theirs) {
                    difference = other.text
                    self.tools = tools
                }
                difference = difference ?? other.text
            }
            differences.append("it writes functions otherwise: \(difference ?? "") (\(hint))")
        } catch let error as TemplateError {
            differences.append("what it makes of functions cannot be evaluated (\(error.reason); \(hint))")
        }
    }

    private static func form(in prompt: String) -> CallForm? {
        if prompt.contains(CallForm.functionTag.open + "f>") { return .taggedXML }
        if prompt.contains("<tool_call>\n{\"name\": \"f\"") { return .taggedJSON }
        return prompt.contains(#"{"name": "f", "parameters": "#) ? .json : nil
    }

    // MARK: - Descriptions

    /// How functions are described, with what surrounds the system prompt then; nil: in a way that is not known.
    private func description(_ rendering: Rendering, _ format: ChatFormat) throws -> ToolFormat? {
        let style = format.style
        func turns(_ messages: [TemplateValue], _ tools: [ToolDescription]) throws -> (system: String, user: String) {
            let text = try rendering.text(messages, tools: tools, date: .place)
            return (style.text(of: .system, in: text), style.text(of: .user, in: text))
        }
        let (system, question) = ("Instructions of the sample", "Question of the sample")
        let user = Rendering.message("user", question)
        let one = try turns([Rendering.message("system", system), user], [Self.tool])
        let two = try turns([Rendering.message("system", system), user], [Self.tool, Self.otherTool])
        let bare = try turns([user], [Self.tool])
        for description in ToolFormat.Description.allCases {
            let text = description.text(of: Self.tool)
            let isInSystem = one.system.contains(text)
            let (first, both) = isInSystem ? (one.system, two.system) : (one.user, two.user)
            let sides = first.parts(separatedBy: text)
            guard sides.count == 2, let start = both.range(of: text),
                let end = both.range(of: description.text(of: Self.otherTool)), start.upperBound <= end.lowerBound
            else { continue }
            var tools = ToolFormat(
                calls: .taggedJSON, description: description, place: .firstTurn, before: sides[0],
                between: String(both[start.upperBound..<end.lowerBound]), after: sides[1])
            var (prefix, standard) = ("", "")
            if !isInSystem {
                guard sides[1].hasSuffix(question), one.system.hasSuffix(system) else { return nil }
                tools.after = String(sides[1].dropLast(question.count))
                prefix = String(one.system.dropLast(system.count))
                standard = bare.system
            } else if let place = sides[0].range(of: system) {
                let gap = sides[0][place.upperBound...]
                guard gap.hasPrefix("\n\n") else { return nil }
                tools.place = .systemEnd
                tools.before = String(gap.dropFirst(2))
                prefix = String(sides[0][..<place.lowerBound])
                let head = bare.system.parts(separatedBy: tools.before + text)[0]
                standard = String(head.hasSuffix("\n\n") ? head.dropLast(2) : head[...])
            } else if sides[1].hasSuffix(system) {
                tools.place = .systemStart
                tools.after = String(sides[1].dropLast(system.count))
            } else {
                return nil
            }
            tools.systemPrefix = prefix == format.systemPrefix ? nil : prefix
            tools.defaultSystem = standard == format.defaultSystem ? nil : standard
            return tools
        }
        return nil
    }

    // MARK: - Samples

    /// Where prompts here differ from the template's, if they do.
    private func difference(
        _ tools: ToolFormat, _ takesValues: Bool, _ rendering: Rendering, _ format: ChatFormat
    ) throws -> (text: String, theirs: String)? {
        var format = format
        format.tools = tools
        let tokenizer = try Self.tokenizer(of: format.style)
        for sample in Self.samples(severalCalls: tools.calls.allowsSeveral) {
            let system = sample.first?.role == .system ? sample[0].text : ""
            let prompt = try Prompt(
                turns: sample.filter { $0.role != .system }, system: system,
                tools: [Self.tool, Self.otherTool], thinks: true, format: format,
                tokenizer: tokenizer)
            let ours = String(decoding: tokenizer.decode(prompt.tokens, specials: .named), as: UTF8.self)
            let theirs: String
            do {
                theirs = try rendering.text(
                    sample.map { Self.message($0, asWritten: !takesValues) }, tools: [Self.tool, Self.otherTool],
                    date: .sample)
            } catch let error as TemplateError { return (error.reason, "") }
            if let text = Self.difference(ours, theirs) { return (text, theirs) }
        }
        return nil
    }

    private static func samples(severalCalls: Bool) -> [[Turn]] {
        var called = Turn(.assistant, " A")
        called.calls = severalCalls ? [call, call] : [call]
        let results = severalCalls ? [Turn(.tool, "R"), Turn(.tool, " S\"")] : [Turn(.tool, " S\"")]
        return [
            [Turn(.user, "U")], [Turn(.system, "S"), Turn(.user, " U")],
            [Turn(.user, "U"), silent, Turn(.tool, "R"), Turn(.assistant, "B"), Turn(.user, "V")],
            [Turn(.system, "S"), Turn(.user, "U"), called] + results + [silent, Turn(.tool, "R\nR")],
        ]
    }

    private static let call = FunctionCall(
        name: "f", arguments: #"{"a":[1,true],"b":"x\n\"y","c":false,"d":7,"e":{"g":null}}"#)
    private static var silent: Turn {
        var turn = Turn(.assistant, "")
        turn.calls = [call]
        return turn
    }

    private static let tool = parsed(
        #"{"type":"function","function":{"name":"f","description":"D, of f","parameters":{"type":"object","#
            + #""properties":{"a":{"type":"string","description":" E","enum":["x",1],"default":false},"b":{"minimum":-3}},"#
            + #""required":["a"],"additionalProperties":true}}}"#)
    private static let otherTool = parsed(
        #"{"type":"function","function":{"name":"g","parameters":{"type":"object","properties":{}}}}"#)

    private static func parsed(_ json: String) -> ToolDescription {
        ToolDescription((try? JSONValue.parse(json)) ?? .null)
    }

    /// - Parameter asWritten: whether a call's arguments are its text; else they are what it says.
    private static func message(_ turn: Turn, asWritten: Bool) -> TemplateValue {
        var members: [(key: String, value: TemplateValue)] = [
            ("role", .string(turn.role.rawValue)), ("content", .string(turn.text)),
        ]
        guard !turn.calls.isEmpty else { return .map(members) }
        let calls = turn.calls.map { call -> TemplateValue in
            let arguments =
                asWritten
                ? .string(call.arguments) : TemplateValue((try? JSONValue.parse(call.arguments)) ?? .null)
            return .map([
                ("type", .string("function")),
                ("function", .map([("name", .string(call.name)), ("arguments", arguments)])),
            ])
        }
        members.append(("tool_calls", .list(calls)))
        return .map(members)
    }
}

extension ChatFormat.Style {
    /// The text of the role's first turn in a prompt; empty if there is none.
    fileprivate func text(of role: Role, in prompt: String) -> String {
        let (start, end) = (turnStart(role).written, turnEnd(role).written)
        guard !start.isEmpty, !end.isEmpty else { return "" }
        let parts = prompt.parts(separatedBy: start, limit: 1)
        return parts.count > 1 ? parts[1].parts(separatedBy: end, limit: 1)[0] : ""
    }
}
