import Foundation
import Sigma
import SigmaRequests
import Testing

/// Prompts of whole models against transformers: the text and the token ids of the conversations in the file that `SIGMA_PROMPT_CASES` names
/// (Models/reference/check_prompts.py).
@Suite struct ConversationTokensTests {
    private static let path = ProcessInfo.processInfo.environment["SIGMA_PROMPT_CASES"]

    @Test(.enabled(if: path != nil, "SIGMA_PROMPT_CASES names no file"))
    func promptsHaveTransformersTokens() throws {
        let path = try #require(Self.path)
        var contexts: [String: RequestContext] = [:]
        var tally: [String: (equal: Int, count: Int)] = [:]
        let lines = try String(contentsOf: URL(filePath: path), encoding: .utf8).split(separator: "\n")
        for (number, line) in lines.enumerated() {
            let json = try JSONValue.parse(String(line), exactNumbers: true)
            let (name, model) = (try #require(json["name"]?.string), try #require(json["model"]?.string))
            let context = try contexts[model] ?? Self.context(model)
            contexts[model] = context
            let tools = json["tools"].map { #","tool_choice":"none","tools":\#($0.text)"# } ?? ""
            let date = json["date"].map { #","chat_template_kwargs":{"date_string":\#($0.text)}"# } ?? ""
            let body =
                #"{"messages":\#(try #require(json["messages"]).text),"enable_thinking":\#(try #require(json["thinks"]).text)\#(tools)\#(date)}"#
            let request = try ChatCompletionBody(text: body).resolve(in: context)[0]
            let ids = try #require(json["ids"]?.array).map { try #require($0.integer) }
            let isEqual = request.tokens.map(Int64.init) == ids && context.text(request) == json["text"]?.string
            if !isEqual, tally[name, default: (0, 0)].count - tally[name, default: (0, 0)].equal < 3 {
                Issue.record(
                    "line \(number + 1), \(name):\n\(context.text(request))\n--- transformers:\n\(json["text"]?.string ?? "")"
                )
            }
            tally[name, default: (0, 0)].count += 1
            if isEqual { tally[name, default: (0, 0)].equal += 1 }
        }
        for (name, (equal, count)) in tally.sorted(by: { $0.key < $1.key }) {
            print("\(name): \(equal) of \(count) conversations equal")
            #expect(equal == count, "\(name)")
        }
    }

    private static func context(_ path: String) throws -> RequestContext {
        let model = try ModelFile(path: path)
        return RequestContext(
            try Engine(model: model, backend: try CPUBackend(model: model, threadCount: 1)), kvType: .f16)
    }
}
