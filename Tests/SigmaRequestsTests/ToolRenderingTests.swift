import Foundation
import Sigma
import SigmaConversion
import SigmaRequests
import Testing

/// Prompts with functions against what Jinja makes of the same conversations (Models/reference/check_chat_templates.py --tools): a few that are
/// kept, and those of the file that `SIGMA_TOOL_CASES` names.
@Suite struct ToolRenderingTests {
    private static let kept =
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path
        + "/Fixtures/chat/tools.jsonl"

    @Test func promptsAreTheTemplates() throws {
        let paths = [Self.kept] + [ProcessInfo.processInfo.environment["SIGMA_TOOL_CASES"]].compactMap { $0 }
        for path in paths {
            let lines = try String(contentsOf: URL(filePath: path), encoding: .utf8).split(separator: "\n")
            var contexts: [String: RequestContext] = [:]
            for (number, line) in lines.enumerated() {
                let json = try JSONValue.parse(String(line), exactNumbers: true)
                let name = try #require(json["name"]?.string)
                let context = try contexts[name] ?? Self.context(json)
                contexts[name] = context
                let body =
                    #"{"messages":\#(try #require(json["messages"]).text),"tools":\#(try #require(json["tools"]).text),"#
                    + #""tool_choice":"none","enable_thinking":\#(try #require(json["thinks"]).text)}"#
                let request = try ChatCompletionBody(text: body).resolve(in: context)[0]
                #expect(context.text(request) == json["text"]?.string, "\(path), line \(number + 1), \(name)")
            }
            #expect(contexts.count >= 6 && lines.count >= 12 * contexts.count)
        }
    }

    /// What the case's template does, on the day of its conversations, with a tokenizer of bytes and markup.
    static func context(_ json: JSONValue) throws -> RequestContext {
        let template = ChatTemplate(try #require(json["template"]?.string), bos: "")
        #expect(template.obstacle == nil && template.differences.isEmpty, "\(template)")
        var format = try #require(template.format)
        let date = try #require(json["date"]?.string).split(separator: "-").compactMap { Int($0) }
        format.date = try #require(CalendarDate(year: date[0], month: date[1], day: date[2]).text(format.date))
        let specials = format.style.controlTokens.map { Array($0.utf8) }
        let tokenizer = try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable((0..<256).map { [UInt8($0)] } + specials),
                kinds: Array(repeating: .normal, count: 256) + specials.map { _ in .control }, mergeRule: .byRank,
                pattern: .gpt2, normalizer: .none, bos: nil, eos: nil, addsBos: false))
        return RequestContext(
            tokenizer: tokenizer, chatFormat: format, vocabularySize: tokenizer.count, positionLimit: 1 << 20,
            constraints: AnswerConstraints(tokenizer, choosable: TokenMask(all: tokenizer.count), stopTokens: []))
    }

    /// Where the template's calls are other than Qwen's, and what it makes of clients' conversations that it cannot write.
    @Test func whatTemplatesCannotWrite() throws {
        var contexts: [String: RequestContext] = [:]
        for line in try String(contentsOf: URL(filePath: Self.kept), encoding: .utf8).split(separator: "\n") {
            let json = try JSONValue.parse(String(line), exactNumbers: true)
            let name = try #require(json["name"]?.string)
            if contexts[name] == nil { contexts[name] = try Self.context(json) }
        }
        func error(_ name: String, _ calls: String, _ members: String = "") throws -> RequestError? {
            let body =
                #"{"messages":[{"role":"user","content":"U"},{"role":"assistant","tool_calls":[\#(calls)]},{"role":"tool","content":"R"}]\#(members)}"#
            do {
                _ = try ChatCompletionBody(text: body).resolve(in: contexts[name]!)
                return nil
            } catch let error as RequestError { return error }
        }
        func call(_ arguments: String) -> String { #"{"function":{"name":"f","arguments":"\#(arguments)"}}"# }
        for name in ["headers", "coder", "values"] {
            #expect(try error(name, call("{}")) == nil && error(name, call("[1]"))?.param == "messages")
            #expect(try error(name, call("{"))?.status == 400)
            #expect(try (error(name, call("{}") + "," + call("{}")) == nil) == (name != "headers"))
        }
        // As it is written, whatever it is.
        #expect(try error("hermes", call("{")) == nil)
        let date = #","chat_template_kwargs":{"date_string":"1 May 2030, 100 %"}"#
        #expect(try error("headers", call("{}"), date) == nil)
        #expect(try error("hermes", call("{}"), date) == nil, "it changes nothing there")
        let text = #"{"messages":[{"role":"user","content":"U"}]\#(date)}"#
        let context = contexts["headers, today"]!
        #expect(
            context.text(try ChatCompletionBody(text: text).resolve(in: context)[0]).contains(
                "Date: 1 May 2030, 100 %\n"))
    }

    /// Tags are tokens where the tokenizer has them, in the markup and nowhere else.
    @Test func tagsAreTokens() throws {
        let names = [
            "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
        ]
        let tokenizer = try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable((0..<256).map { [UInt8($0)] } + names.map { Array($0.utf8) }),
                kinds: Array(repeating: .normal, count: 256) + names.map { _ in .control },
                mergeRule: .byRank, pattern: .gpt2, normalizer: .none, bos: nil, eos: nil, addsBos: false))
        var context = try Vocabulary.context(style: .chatml, limit: 1 << 20)
        context.tokenizer = tokenizer
        let tag = "<tool_call></tool_call><tool_response>"
        let body = try ChatCompletionBody(
            text: #"""
                {"messages":[{"role":"user","content":"\#(tag)"},{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":"{\"a\":\"\#(tag)\"}"}}]},
                {"role":"tool","content":"\#(tag)"}],"tools":[{"type":"function","function":{"name":"f","description":"\#(tag)"}}],"tool_choice":"none"}
                """#)
        let tokens = try body.resolve(in: context)[0].tokens
        func count(_ name: String) -> Int { tokens.count { $0 == tokenizer.idOfSpecial(named: name) } }
        // The description names the pair twice; the call and the result have one each.
        #expect(count("<tool_call>") == 3 && count("</tool_call>") == 3)
        #expect(count("<tool_response>") == 1 && count("</tool_response>") == 1)
    }
}
