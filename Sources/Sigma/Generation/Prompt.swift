/// One turn of a conversation.
package struct Turn: Sendable, Equatable {
    package enum Role: String, Sendable { case user, assistant }
    package var role: Role
    package var content: String

    package init(_ role: Role, _ content: String) {
        self.role = role
        self.content = content
    }
}

extension ChatFormat {
    /// What comes before the assistant's words; nil if the tokenizer lacks a special token of the format.
    package func assistantHeader(_ tokenizer: Tokenizer) -> [Int32]? {
        switch style {
        case .sigma: tokenizer.idOfSpecial(named: "<|assistant|>").map { [$0] }
        case .chatml:
            tokenizer.idOfSpecial(named: "<|im_start|>").map {
                [$0] + tokenizer.encode("assistant\n", recognizingSpecials: false)
            }
        }
    }
}

/// A conversation in the model's chat format, as token ids.
///
/// The template's specials are ids; each text between two of them is encoded as one string in which nothing is special.
package struct Prompt: Sendable, Equatable {
    package var tokens: [Int32]
    /// Whether generation begins inside `<think>`, at the answer, or wherever the model's first words say.
    package var start: ThinkingSplitter.State

    package init(tokens: [Int32], start: ThinkingSplitter.State) {
        self.tokens = tokens
        self.start = start
    }

    /// - Throws: `SigmaError(.damaged)` if the tokenizer lacks one of the format's special tokens.
    package init(
        turns: [Turn], system: String, thinks: Bool, format: ChatFormat, tokenizer: Tokenizer
    ) throws {
        var builder = Builder(tokenizer: tokenizer)
        switch format.style {
        case .sigma:
            // Paper, Table 5: the thinking prompt is appended to the system prompt.
            let parts = [system, thinks ? format.thinkingPrompt : ""].filter { !$0.isEmpty }
            if let bos = tokenizer.bos { builder.add(id: bos) }
            if !parts.isEmpty {
                try builder.add(special: "<|system|>")
                builder.add(text: parts.joined(separator: " "))
                try builder.add(special: "<|end|>")
            }
            for turn in turns {
                try builder.add(special: "<|\(turn.role.rawValue)|>")
                if turn.role == .assistant { builder.add(text: "<think></think>") }
                builder.add(text: turn.content)
                try builder.add(special: "<|end|>")
            }
            try builder.add(special: "<|assistant|>")
            if !thinks {
                builder.add(text: "<think></think>")
                start = .answer
            } else if format.opensThinking {
                builder.add(text: "<think>")
                start = .thinking
            } else {
                start = .undetermined
            }
        case .chatml:
            let parts = [system, thinks ? format.thinkingPrompt : ""].filter { !$0.isEmpty }
            if tokenizer.addsBos, let bos = tokenizer.bos { builder.add(id: bos) }
            if !parts.isEmpty { try builder.addChatML("system", parts.joined(separator: " ")) }
            for turn in turns { try builder.addChatML(turn.role.rawValue, turn.content) }
            try builder.add(special: "<|im_start|>")
            builder.add(text: "assistant\n")
            if !thinks {
                try builder.addTag("<think>")
                builder.add(text: "\n\n")
                try builder.addTag("</think>")
                builder.add(text: "\n\n")
                start = .answer
            } else if format.opensThinking {
                try builder.addTag("<think>")
                builder.add(text: "\n")
                start = .thinking
            } else {
                start = .undetermined
            }
        }
        tokens = builder.finish()
    }

    private struct Builder {
        let tokenizer: Tokenizer
        var tokens: [Int32] = []
        var text = ""

        init(tokenizer: Tokenizer) { self.tokenizer = tokenizer }

        mutating func add(id: Int32) {
            flush()
            tokens.append(id)
        }

        mutating func add(text more: String) { text += more }

        mutating func add(special name: String) throws {
            guard let id = tokenizer.idOfSpecial(named: name) else {
                throw SigmaError(
                    .damaged, "the chat format needs the special token \(name), which the tokenizer does not have",
                    remedy:
                        "Use --raw with the model's own markup, or convert the checkpoint with its own tokenizer files."
                )
            }
            add(id: id)
        }

        /// A tag that some tokenizers have as a token and others write as text.
        mutating func addTag(_ name: String) throws {
            if let id = tokenizer.idOfSpecial(named: name) { add(id: id) } else { add(text: name) }
        }

        mutating func addChatML(_ role: String, _ content: String) throws {
            try add(special: "<|im_start|>")
            add(text: role + "\n" + content)
            try add(special: "<|im_end|>")
            add(text: "\n")
        }

        mutating func flush() {
            if !text.isEmpty { tokens += tokenizer.encode(text, recognizingSpecials: false) }
            text = ""
        }

        mutating func finish() -> [Int32] {
            flush()
            return tokens
        }
    }
}
