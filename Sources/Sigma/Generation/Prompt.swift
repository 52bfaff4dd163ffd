extension ChatFormat {
    /// What comes before the assistant's words; nil if the tokenizer lacks a special token of the format.
    package func assistantHeader(_ tokenizer: Tokenizer) -> [Int32]? {
        var ids: [Int32] = []
        for mark in style.turnStart(.assistant) {
            switch mark {
            case .special(let name):
                guard let id = tokenizer.idOfSpecial(named: name) else { return nil }
                ids.append(id)
            case .text(let text): ids += tokenizer.encode(text, recognizingSpecials: false)
            }
        }
        return ids
    }
}

/// A conversation in the model's chat format, as token ids.
///
/// The template's specials are ids; each text between two of them is encoded as one string in which nothing is special. Answers whose history
/// reads as they were generated stand there with those very tokens, which another encoding of their text could miss.
package struct Prompt: Sendable, Equatable {
    package var tokens: [Int32]
    /// Whether generation begins inside `<think>`, at the answer, or wherever the model's first words say.
    package var start: ThinkingSplitter.State
    /// Where the assistant's turn begins, behind its header; nil if no token begins there, or none was asked for.
    package var answerStart: Int?

    package init(tokens: [Int32], start: ThinkingSplitter.State) {
        self.tokens = tokens
        self.start = start
    }

    /// What is put behind the last assistant's header.
    package var opening: [Int32]? { answerStart.map { Array(tokens[$0...]) } }

    /// - Parameters:
    ///   - tools: the functions that may be called.
    ///   - keepsThinking: whether earlier thinking stays in the history. That behind the last question always does: of one answer, with calls and
    ///     their results in it.
    ///   - asksForAnswer: whether the assistant's header follows the turns; without it the tokens are the history alone.
    ///   - continuesLast: whether the last turn is an answer that generation continues: its end is left out.
    /// - Throws: `SigmaError(.damaged)` if the tokenizer lacks one of the format's special tokens.
    package init(
        turns: [Turn], system: String, tools: [ToolDescription] = [], thinks: Bool, keepsThinking: Bool = false,
        asksForAnswer: Bool = true, continuesLast: Bool = false, format: ChatFormat, tokenizer: Tokenizer
    ) throws {
        let continued = continuesLast ? turns.last : nil
        precondition(!continuesLast || continued?.role == .assistant, "only an answer can be continued")
        let turns = continuesLast ? turns.dropLast() : turns[...]
        var builder = Builder(tokenizer: tokenizer)
        let style = format.style
        // Paper, Table 5: the thinking prompt is appended to the system prompt.
        let instructions = [system, thinks ? format.thinkingPrompt : ""].filter { !$0.isEmpty }.joined(separator: " ")
        start = thinks && !continuesLast ? (format.opensThinking ? .thinking : .undetermined) : .answer
        if tokenizer.addsBos || style.beginsText, let bos = tokenizer.bos { builder.add(id: bos) }
        // Where functions are described, what surrounds the system prompt may be another.
        var markup = tools.isEmpty ? nil : format.tools
        markup?.before = format.dated(format.tools.before)
        let description = markup?.pieces(describing: tools) ?? []
        var systemText = ""
        if !instructions.isEmpty {
            let prefix = markup?.systemPrefix ?? format.systemPrefix
            systemText = format.dated(prefix) + format.trimmed(instructions)
        } else if !tools.isEmpty || turns.first?.role != .system {
            systemText = format.dated(markup?.defaultSystem ?? format.defaultSystem)
        }
        let describesInSystem = markup.map { $0.place != .firstTurn } ?? false
        if !systemText.isEmpty || describesInSystem {
            try builder.add(marks: style.turnStart(.system))
            if markup?.place == .systemStart { builder.add(pieces: description) }
            builder.add(text: systemText)
            if markup?.place == .systemEnd {
                builder.add(text: systemText.isEmpty ? "" : "\n\n")
                builder.add(pieces: description)
            }
            try builder.add(marks: style.turnEnd(.system))
        }
        if markup?.place == .firstTurn, turns.isEmpty || turns.first?.role != .user {
            try builder.add(marks: style.turnStart(.user))
            builder.add(pieces: description)
            try builder.add(marks: style.turnEnd(.user))
        }
        // The history of an answer in Sigma's format is the same whether it was thought about or not.
        let isSigma = style == .sigma
        let noThinking = isSigma && format.thinks ? Self.noThinking : ""
        let opening = tokenizer.encode(noThinking, recognizingSpecials: false)
        // A history alone is what stands before the next question.
        let lastQuestion = (asksForAnswer ? turns.lastIndex { $0.role == .user } : nil) ?? turns.endIndex
        for (index, turn) in zip(turns.indices, turns) {
            let role = turn.role == .tool ? style.resultsRole : turn.role.inMarkup
            let keepsThinking = keepsThinking || (format.thinks && index > lastQuestion)
            if let ids = turn.tokens(opening: opening, keepsThinking: keepsThinking) {
                try builder.add(marks: style.turnStart(role))
                builder.add(ids: ids)
                try builder.add(marks: style.turnEnd(role))
            } else if turn.role == .assistant {
                let answer = format.trimmed(turn.answer)
                try builder.add(marks: style.turnStart(role))
                if isSigma {
                    builder.add(text: turn.taggedThinking(keepsThinking) ?? noThinking)
                } else if keepsThinking, !turn.reasoning.isEmpty {
                    builder.addThinking(turn.reasoningLines)
                }
                builder.add(pieces: format.tools.pieces(calling: turn.calls, behind: answer))
                try builder.add(marks: style.turnEnd(role))
            } else if turn.role == .tool {
                let isAlone = !format.tools.joinsResults
                let isFirst = isAlone || index == turns.startIndex || turns[index - 1].role != .tool
                if isFirst { try builder.add(marks: style.turnStart(role)) }
                builder.add(pieces: format.tools.pieces(result: turn.text, isFirst: isFirst))
                let isLast = isAlone || index + 1 == turns.endIndex || turns[index + 1].role != .tool
                if isLast { try builder.add(marks: style.turnEnd(role)) }
            } else {
                try builder.add(marks: style.turnStart(role))
                if markup?.place == .firstTurn, index == turns.startIndex, role == .user {
                    builder.add(pieces: description)
                }
                builder.add(text: format.trimmed(turn.text))
                try builder.add(marks: style.turnEnd(role))
            }
        }
        if asksForAnswer {
            try builder.add(marks: style.turnStart(.assistant))
            if let continued {
                if isSigma {
                    builder.add(text: format.thinks ? continued.taggedThinking(true) ?? noThinking : "")
                } else if format.thinks {
                    builder.addThinking(continued.reasoningLines, orClosed: format.closedThinking)
                }
                builder.add(text: continued.answer)
            } else {
                // Where the tags are text they are encoded together with the header's, and no token begins between them.
                let isApart =
                    builder.text.isEmpty || start == .undetermined || !format.thinks
                    || tokenizer.idOfSpecial(named: "<think>") != nil
                if isApart {
                    builder.flush()
                    answerStart = builder.tokens.count
                }
                if isSigma {
                    builder.add(text: !thinks ? noThinking : format.opensThinking ? "<think>" : "")
                } else if !thinks && format.thinks {
                    builder.addThinking("", orClosed: format.closedThinking)
                } else if thinks && format.opensThinking {
                    builder.addTag("<think>")
                    builder.add(text: style.thinkingGap)
                }
            }
        }
        tokens = builder.finish()
    }

    /// Text without a template: bos if the tokenizer asks for one, and the specials that the text names.
    package init(raw text: String, tokenizer: Tokenizer) {
        let bos = tokenizer.addsBos ? tokenizer.bos.map { [$0] } ?? [] : []
        self.init(tokens: bos + tokenizer.encode(text, recognizingSpecials: true), start: .answer)
    }

    private static let noThinking = "<think></think>"

    private struct Builder {
        let tokenizer: Tokenizer
        var tokens: [Int32] = []
        var text = ""
        /// Whether white space at the text's begin belongs to the token before it.
        private var stripsStart = false

        init(tokenizer: Tokenizer) { self.tokenizer = tokenizer }

        mutating func add(id: Int32) {
            let matching = tokenizer.matching(of: id)
            if matching.contains(.stripsLeft) { text.removeTrailingSpace() }
            flush()
            tokens.append(id)
            stripsStart = matching.contains(.stripsRight)
        }

        mutating func add(ids: [Int32]) {
            flush()
            tokens += ids
            stripsStart = ids.last.map { tokenizer.matching(of: $0).contains(.stripsRight) } ?? stripsStart
        }

        mutating func add(text more: String) { text += more }

        mutating func add(special name: String) throws {
            guard let id = tokenizer.idOfSpecial(named: name) else {
                throw SigmaError(
                    .damaged, "the chat format needs the special token \(name), which the tokenizer does not have",
                    remedy: .anyOf([.writeMarkup, "Convert the checkpoint with its own tokenizer files."]))
            }
            add(id: id)
        }

        /// A tag that some tokenizers have as a token and others write as text.
        mutating func addTag(_ name: String) {
            if let id = tokenizer.idOfSpecial(named: name) { add(id: id) } else { add(text: name) }
        }

        mutating func add(pieces: [ToolFormat.Piece]) {
            for piece in pieces {
                switch piece {
                case .tag(let name): addTag(name)
                case .text(let text): add(text: text)
                }
            }
        }

        mutating func add(marks: [ChatFormat.Style.Mark]) throws {
            for mark in marks {
                switch mark {
                case .special(let name): try add(special: name)
                case .text(let text): add(text: text)
                }
            }
        }

        /// Thinking that is over, on lines of its own, as Qwen's templates write it: perhaps before it began.
        /// - Parameter closed: what stands for no thinking; nil: the same.
        mutating func addThinking(_ lines: String, orClosed closed: String? = nil) {
            if lines.isEmpty, let closed { return add(markup: closed, tags: ["<think>", "</think>"]) }
            addTag("<think>")
            add(text: lines.isEmpty ? "\n\n" : "\n\(lines)\n")
            addTag("</think>")
            add(text: "\n\n")
        }

        private mutating func add(markup: String, tags: [String]) {
            var rest = markup[...]
            while !rest.isEmpty {
                if let tag = tags.first(where: { rest.hasPrefix($0) }) {
                    addTag(tag)
                    rest = rest.dropFirst(tag.count)
                } else {
                    add(text: String(rest.removeFirst()))
                }
            }
        }

        mutating func flush() {
            if stripsStart {
                text.removeLeadingSpace()
                // White space goes on into the next text, where this one was nothing else.
                stripsStart = text.isEmpty
            }
            if !text.isEmpty { tokens += tokenizer.encode(text, recognizingSpecials: false) }
            text = ""
        }

        mutating func finish() -> [Int32] {
            flush()
            return tokens
        }
    }
}

extension Turn {
    /// The ids of an answer that stands in the history as it was generated; nil if its text has to be encoded.
    ///
    /// - Parameter opening: what the history has behind the assistant's header where there was no thinking.
    fileprivate func tokens(opening: [Int32], keepsThinking: Bool) -> [Int32]? {
        guard let written, role == .assistant else { return nil }
        guard keepsThinking || (reasoning.isEmpty && written.opening == opening) else { return nil }
        return written.opening + written.generated
    }

    /// The answer's text without the line ends that models write between `</think>` and the answer.
    fileprivate var answer: String {
        guard !reasoning.isEmpty, role == .assistant else { return text }
        return String(text.unicodeScalars.drop { $0 == "\n" })
    }

    /// The thinking without the line ends around it.
    fileprivate var reasoningLines: String {
        var thinking = reasoning.unicodeScalars.drop { $0 == "\n" }
        while thinking.last == "\n" { thinking.removeLast() }
        return String(thinking)
    }

    /// The thinking with its tags, as Sigma's format has it, if it is there and to be kept.
    fileprivate func taggedThinking(_ isKept: Bool) -> String? {
        isKept && !reasoning.isEmpty ? "<think>\(reasoning)</think>" : nil
    }
}

extension Turn.Role {
    fileprivate var inMarkup: ChatFormat.Style.Role {
        switch self {
        case .user: .user
        case .assistant: .assistant
        case .system: .system
        case .tool: .user
        }
    }
}

extension ChatFormat {
    /// A message as it stands in its turn.
    fileprivate func trimmed(_ text: String) -> String {
        guard trimsMessages else { return text }
        return text.trimmed
    }
}

extension String {
    fileprivate mutating func removeLeadingSpace() {
        self = String(unicodeScalars.drop { $0.properties.isWhitespace })
    }
    fileprivate mutating func removeTrailingSpace() {
        while unicodeScalars.last?.properties.isWhitespace == true { unicodeScalars.removeLast() }
    }
}
