import Sigma

/// A piece of a call that an answer makes.
struct CallPiece: Equatable {
    /// The call's place among the answer's calls.
    var index: Int
    /// Where the call begins: the function that it calls.
    var name: String?
    /// What follows of the arguments' JSON.
    var arguments = ""
    /// Whether the call ends, complete.
    var isEnd = false
}

/// Separates an answer's text from the calls after it, however the text is cut into pieces.
///
/// The constraint holds every call to its form, so nothing is checked here. Line ends between the text and a call are no part of either. Where calls
/// do not follow text, a tag within the text is text.
struct CallParser: Sendable {
    private enum Stage: Equatable {
        case text
        /// Text that no call can follow.
        case textOnly
        /// Behind the tag, before the arguments.
        case head
        /// So many brackets are open.
        case arguments(depth: Int, isInString: Bool, isEscaped: Bool)
        /// Behind the arguments, before the end of the call.
        case tail
        /// Of tagged XML: behind the function's name or a parameter.
        case line(isFirst: Bool)
        /// In a parameter's value.
        case value
    }

    private let opening: CallOpening
    private let closeTag: [UInt8]
    /// Whether a call may stand behind text.
    private let followsText: Bool
    private let parameters: @Sendable (String) -> FunctionParameters
    private var stage = Stage.text
    private var progress: CallOpening.Progress
    /// Text that may yet belong to a tag; of a call's head, all of it.
    private var held: [UInt8] = []
    private var count = 0
    /// Of the call in tagged XML, and of its parameter.
    private var function = FunctionParameters()
    private var value = ParameterReader([])

    /// - Parameters:
    ///   - followsText: whether the answer is text that calls may follow; else it is calls or text.
    ///   - parameters: what a function's parameters can be, where calls are tagged XML.
    init(
        _ opening: CallOpening, followsText: Bool, parameters: @escaping @Sendable (String) -> FunctionParameters
    ) {
        self.opening = opening
        self.followsText = followsText && opening.form.followsText
        self.parameters = parameters
        closeTag = Array((opening.form.tags?.close ?? "}").utf8)
        progress = opening.start
    }

    /// Whether text waits that may be the answer's, or part of a call.
    var isUndecided: Bool { stage == .text && !held.isEmpty }
    var isInCall: Bool { stage != .text && stage != .textOnly || count > 0 }

    /// What of the answer so far is certain now: text, then pieces of calls.
    mutating func append(_ text: String) -> (text: String, calls: [CallPiece]) {
        var output = Output()
        for byte in text.utf8 { take(byte, &output) }
        if stage == .value { output.arguments += value.flush() }
        output.addArguments(of: count)
        return (String(decoding: output.text, as: UTF8.self), output.pieces)
    }

    /// The end: text that was held back and is the answer's after all.
    /// - Parameter isCut: whether the answer could have gone on: then what may be a call's begin is taken for one.
    mutating func finish(isCut: Bool) -> String {
        defer { held = [] }
        let mayBeCall = opening.tag.first.map { held.contains($0) } ?? true
        if isInCall || isCut && mayBeCall { return "" }
        return String(decoding: held, as: UTF8.self)
    }

    private struct Output {
        var text: [UInt8] = []
        var pieces: [CallPiece] = []
        /// Of the last call, not in a piece yet.
        var arguments: [UInt8] = []

        mutating func addArguments(of call: Int) {
            guard !arguments.isEmpty else { return }
            let text = String(decoding: arguments, as: UTF8.self)
            arguments = []
            change(call) { $0.arguments = text }
        }

        /// Changes the last piece, if it is the call's, or a new one.
        mutating func change(_ call: Int, _ body: (inout CallPiece) -> Void) {
            if pieces.last?.index != call { pieces.append(CallPiece(index: call)) }
            body(&pieces[pieces.count - 1])
        }
    }

    private mutating func take(_ byte: UInt8, _ output: inout Output) {
        switch stage {
        case .text: opening.tag.isEmpty ? takeHead(byte, &output) : takeText(byte, &output)
        case .textOnly: output.text.append(byte)
        case .head where opening.form == .taggedXML:
            held.append(byte)
            guard let name = name(behind: "\n" + CallForm.functionTag.open) else { return }
            function = parameters(name)
            output.change(count) { $0.name = name }
            output.arguments.append(UInt8(ascii: "{"))
            held = []
            stage = .line(isFirst: true)
        case .head:
            // The first bracket is the call's, the second that of the arguments: names have none.
            guard byte == UInt8(ascii: "{"), held.contains(byte) else { return held.append(byte) }
            let words = held.split(separator: UInt8(ascii: "\""), omittingEmptySubsequences: false)
            let name = words.count > 3 ? String(decoding: words[3], as: UTF8.self) : ""
            output.change(count) { $0.name = name }
            held = []
            stage = .arguments(depth: 0, isInString: false, isEscaped: false)
            take(byte, &output)
        case .arguments(var depth, var isInString, var isEscaped):
            output.arguments.append(byte)
            if isInString {
                if !isEscaped, byte == UInt8(ascii: "\"") { isInString = false }
                isEscaped = !isEscaped && byte == UInt8(ascii: "\\")
            } else {
                switch byte {
                case UInt8(ascii: "\""): isInString = true
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
                default: break
                }
            }
            stage = depth == 0 ? .tail : .arguments(depth: depth, isInString: isInString, isEscaped: isEscaped)
        case .line(let isFirst):
            held.append(byte)
            if let name = name(behind: CallForm.parameterTag.open) {
                var key = ""
                JSONWriter.escape(name, .python, into: &key)
                output.arguments += Array("\(isFirst ? "" : ", ")\(key): ".utf8)
                value = ParameterReader(function.kinds(of: name))
                held = []
                stage = .value
            } else if held.elementsEqual(CallForm.functionTag.close.utf8) {
                output.arguments.append(UInt8(ascii: "}"))
                held = []
                stage = .tail
            }
        case .value:
            guard value.take(byte) else { return }
            output.arguments += value.flush()
            stage = .line(isFirst: false)
        case .tail:
            held.append(byte)
            guard held.suffix(closeTag.count).elementsEqual(closeTag) else { return }
            output.addArguments(of: count)
            output.change(count) { $0.isEnd = true }
            count += 1
            held = []
            stage = .text
        }
    }

    /// Calls with tags.
    private mutating func takeText(_ byte: UInt8, _ output: inout Output) {
        held.append(byte)
        if !followsText, count == 0, !opening.tag.starts(with: held) {
            output.text += held
            held = []
            stage = .textOnly
            return
        }
        let lineEnds = held.prefix { $0 == UInt8(ascii: "\n") }.count
        let tag = held[lineEnds...]
        if tag.elementsEqual(opening.tag) {
            held = []
            stage = .head
        } else if !opening.tag.starts(with: tag) {
            // A tag's first byte is nowhere else in it, so a new tag can only begin with this byte.
            let isStart = byte == opening.tag[0] || byte == UInt8(ascii: "\n")
            if isStart { held.removeLast() }
            if count == 0 { output.text += held }
            held = isStart ? [byte] : []
        }
    }

    /// Calls without: the answer is one, or text.
    private mutating func takeHead(_ byte: UInt8, _ output: inout Output) {
        held.append(byte)
        if opening.take(byte, &progress) != nil {
            stage = .head
        } else if progress == .text {
            // Nothing comes behind a call.
            if count == 0 { output.text += held }
            held = []
            if count == 0 { stage = .textOnly }
        }
    }

    /// The name in a tag, where the held text is one, with its line end.
    private func name(behind start: String) -> String? {
        let start = start.utf8
        guard held.count > start.count + 1, held.starts(with: start), held.suffix(2).elementsEqual(">\n".utf8) else {
            return nil
        }
        return String(decoding: held.dropFirst(start.count).dropLast(2), as: UTF8.self)
    }
}
