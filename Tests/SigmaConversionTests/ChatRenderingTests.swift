import Sigma
import SigmaConversion
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Prompts against what Jinja makes of the same conversations (Models/reference/check_chat_templates.py): a few that are kept, and those of the
/// file that `SIGMA_CHAT_CASES` names.
@Suite struct ChatRenderingTests {
    private static let kept = packageRoot + "/Tests/Fixtures/chat/cases.jsonl"

    @Test func promptsAreTheTemplates() throws {
        let paths = [Self.kept] + [ProcessInfo.processInfo.environment["SIGMA_CHAT_CASES"]].compactMap { $0 }
        for path in paths {
            let lines = try String(contentsOf: URL(filePath: path), encoding: .utf8).split(separator: "\n")
            var names: Set<String> = []
            for (number, line) in lines.enumerated() {
                let json = try JSONValue.parse(String(line))
                let name = try #require(json["name"]?.string)
                names.insert(name)
                try check(json, "\(path), line \(number + 1), \(name)")
            }
            #expect(names.count >= 9 && lines.count >= 4 * names.count)
        }
    }

    private func check(_ json: JSONValue, _ place: String) throws {
        let bos = try #require(json["bos"]?.string)
        let template = ChatTemplate(try #require(json["template"]?.string), bos: bos)
        #expect(template.obstacle == nil && template.differences.isEmpty, "\(place): \(template)")
        var format = try #require(template.format, "\(place): no markup")
        let date = try #require(json["date"]?.string).split(separator: "-").compactMap { Int($0) }
        format.date = try #require(CalendarDate(year: date[0], month: date[1], day: date[2]).text(format.date))
        let bytes = (0..<256).map { [UInt8($0)] }
        let specials = ([bos] + format.style.controlTokens).map { Array($0.utf8) }
        let tokenizer = try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable(bytes + specials),
                kinds: Array(repeating: .normal, count: 256) + specials.map { _ in .control }, mergeRule: .byRank,
                pattern: .gpt2, normalizer: .none, bos: 256, eos: nil, addsBos: false))
        var (system, turns) = ("", [Turn]())
        for message in try #require(json["messages"]?.array) {
            let text = try #require(message["content"]?.string)
            switch message["role"]?.string {
            case "system": system = text
            case "user": turns.append(Turn(.user, text))
            default: turns.append(Turn(.assistant, text, reasoning: message["reasoning_content"]?.string ?? ""))
            }
        }
        let prompt = try Prompt(
            turns: turns, system: system, thinks: try #require(json["thinks"]?.bool), format: format,
            tokenizer: tokenizer)
        let found = String(decoding: tokenizer.decode(prompt.tokens, specials: .named), as: UTF8.self)
        #expect(found == json["text"]?.string, "\(place)")
    }
}
