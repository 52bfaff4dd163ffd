import Sigma
import SigmaRequests
import Testing

@Suite struct MessagesWriterTests {
    private func writer(promptTokens: Int = 5) throws -> MessagesWriter {
        MessagesWriter(
            AnswerHead(id: "msg_1", created: 7, model: "m"), try MessagesBody.asking().chat.settings,
            GenerationRequest(
                tokens: Array(repeating: 1, count: promptTokens), start: .answer, options: GenerationOptions()))
    }

    static let message =
        #"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"a","signature":"unsigned"},{"type":"text","text":"He!"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":3}}"#

    @Test func aWholeAnswer() throws {
        var writer = try writer()
        for event in ChatWriterTests.events { writer.take(event) }
        #expect(writer.isFinished && writer.answer() == Self.message)
    }

    @Test func aStream() throws {
        var writer = try writer()
        let events = writer.opening() + ChatWriterTests.events.flatMap { writer.events(for: $0) }
        for event in events { #expect(try JSONValue.parse(event.data)["type"]?.string == event.name) }
        func block(_ index: Int, _ members: String) -> String {
            #"{"type":"content_block_start","index":\#(index),"content_block":{\#(members)}}"#
        }
        func delta(_ index: Int, _ kind: String, _ key: String, _ text: String) -> String {
            #"{"type":"content_block_delta","index":\#(index),"delta":{"type":"\#(kind)","\#(key)":"\#(text)"}}"#
        }
        #expect(
            events.map(\.data) == [
                #"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}"#,
                block(0, #""type":"thinking","thinking":"","signature":"""#),
                delta(0, "thinking_delta", "thinking", "a"), delta(0, "signature_delta", "signature", "unsigned"),
                #"{"type":"content_block_stop","index":0}"#, block(1, #""type":"text","text":"""#),
                delta(1, "text_delta", "text", "He"), delta(1, "text_delta", "text", "!"),
                #"{"type":"content_block_stop","index":1}"#,
                #"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":3}}"#,
                #"{"type":"message_stop"}"#,
            ])
    }

    /// Why an answer ended, as the engine says it and as the client reads it.
    @Test func reasons() throws {
        var atStopString = Statistics.ended(.stop)
        atStopString.stopString = "\n"
        for (statistics, reason, stop) in [
            (Statistics.ended(.stop), "end_turn", nil), (atStopString, "stop_sequence", "\n"),
            (.ended(.length), "max_tokens", nil), (.ended(.context), "max_tokens", nil),
        ] as [(Statistics, String, String?)] {
            var writer = try writer()
            writer.take(.finished(statistics, remainder: nil))
            let message = try JSONValue.parse(writer.answer())
            #expect(message["stop_reason"]?.string == reason && message["stop_sequence"]?.string == stop)
            #expect(message["content"]?.array?.count == 1, "a text, though it is empty")
        }
    }

    @Test func aStreamAddsUpToTheWhole() throws {
        for seed in 0..<200 as Range<UInt64> {
            var source = RandomEvents(seed: seed, logProbabilityCount: nil)
            let events = source.events(thinks: Bool.random(using: &source.random))
            var whole = try writer(promptTokens: 99)
            var stream = try writer(promptTokens: 99)
            for event in events { whole.take(event) }
            let data = try (stream.opening() + events.flatMap { stream.events(for: $0) }).map {
                try JSONValue.parse($0.data)
            }
            var message = try #require(data[0]["message"]?.object)
            var blocks: [JSONObject] = []
            for event in data {
                switch event["type"]!.string! {
                case "content_block_start":
                    #expect(event["index"]?.integer == Int64(blocks.count))
                    blocks.append(event["content_block"]!.object!)
                case "content_block_delta":
                    let (key, text) = (event["delta"]!.object!.keys[1], event["delta"]!.object!.values[1].string!)
                    let index = Int(event["index"]!.integer!)
                    #expect(index == blocks.count - 1)
                    blocks[index].set(key, .string(blocks[index][key]!.string! + text))
                case "message_delta":
                    for (key, value) in zip(event["delta"]!.object!.keys, event["delta"]!.object!.values) {
                        message.set(key, value)
                    }
                    message.set("usage", event["usage"]!)
                default: break
                }
            }
            message.set("content", .array(blocks.map { .object($0) }))
            #expect(.object(message) == (try JSONValue.parse(whole.answer())))
        }
    }
}
