import Foundation
import Sigma
import SigmaRequests
import Testing

/// Prompts with functions against what Jinja makes of the same conversations (Models/reference/check_chat_templates.py --tools): a few that are
/// kept, and those of the file that `SIGMA_TOOL_CASES` names.
@Suite struct ToolRenderingTests {
    private static let kept =
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path
        + "/Fixtures/chat/tools.jsonl"

    @Test func promptsAreTheTemplates() throws {
        var context = try Vocabulary.context(style: .chatml, limit: 1 << 20)
        context.chatFormat?.thinkingPrompt = ""
        let paths = [Self.kept] + [ProcessInfo.processInfo.environment["SIGMA_TOOL_CASES"]].compactMap { $0 }
        for path in paths {
            let lines = try String(contentsOf: URL(filePath: path), encoding: .utf8).split(separator: "\n")
            #expect(lines.count >= 12)
            for (number, line) in lines.enumerated() {
                let json = try JSONValue.parse(String(line), exactNumbers: true)
                let body =
                    #"{"messages":\#(try #require(json["messages"]).text),"tools":\#(try #require(json["tools"]).text),"#
                    + #""tool_choice":"none","enable_thinking":\#(try #require(json["thinks"]).text)}"#
                let request = try ChatCompletionBody(text: body).resolve(in: context)[0]
                #expect(context.text(request) == json["text"]?.string, "\(path), line \(number + 1)")
            }
        }
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
