import Sigma
import SigmaRequests
import Testing

@Suite struct ResponsesWriterTests {
    private func writer(_ members: String = "") throws -> ResponsesWriter {
        let more = members.isEmpty ? "" : "," + members
        return ResponsesWriter(
            AnswerHead(id: "resp_1", created: 7, model: "m"), try ResponsesBody(text: #"{"input":"Hi"\#(more)}"#),
            TokenNames(try Vocabulary.tokenizer()))
    }

    @Test func aWholeAnswer() throws {
        var writer = try writer(#""instructions":"s","max_output_tokens":9,"metadata":{"a":"b"},"temperature":0.5"#)
        for event in ChatWriterTests.events { writer.take(event) }
        #expect(writer.isFinished)
        #expect(
            writer.answer()
                == #"{"id":"resp_1","object":"response","created_at":7,"status":"completed","background":false,"error":null,"incomplete_details":null,"instructions":"s","max_output_tokens":9,"model":"m","output":["#
                + #"{"id":"rs_1","type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"a"}],"encrypted_content":null,"status":"completed"},"#
                + #"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"output_text","text":"He!","annotations":[],"logprobs":[]}],"status":"completed"}],"#
                + #""parallel_tool_calls":true,"previous_response_id":null,"reasoning":{"effort":null,"summary":null},"service_tier":"default","store":false,"temperature":0.5,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":0.95,"truncation":"disabled","#
                + #""usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":8},"user":null,"metadata":{"a":"b"}}"#
        )
    }

    @Test func theOrderOfAStream() throws {
        var writer = try writer()
        let events = writer.opening() + ChatWriterTests.events.flatMap { writer.events(for: $0) }
        #expect(
            events.map(\.name) == [
                "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
                "response.reasoning_text.delta", "response.reasoning_text.done", "response.content_part.done",
                "response.output_item.done", "response.output_item.added", "response.content_part.added",
                "response.output_text.delta", "response.output_text.delta", "response.output_text.done",
                "response.content_part.done", "response.output_item.done", "response.completed",
            ])
        for (index, event) in events.enumerated() {
            let data = try JSONValue.parse(event.data)
            #expect(data["type"]?.string == event.name && data["sequence_number"]?.integer == Int64(index))
        }
        #expect(
            events[10].text
                == "event: response.output_text.delta\n"
                + #"data: {"type":"response.output_text.delta","sequence_number":10,"item_id":"msg_1","output_index":1,"content_index":0,"delta":"He","logprobs":[]}"#
                + "\n\n")
    }

    /// Reasons as the engine says them, the status, and the last event.
    @Test(arguments: zip([FinishReason.stop, .length, .context], ["completed", "incomplete", "incomplete"]))
    func reasons(_ reason: FinishReason, _ status: String) throws {
        var writer = try writer()
        let last = try #require(writer.events(for: .finished(.ended(reason), remainder: nil)).last)
        #expect(last.name == "response.\(status)")
        let response = try #require(try JSONValue.parse(last.data)["response"])
        #expect(response["status"]?.string == status)
        #expect((response["incomplete_details"]?["reason"]?.string == "max_output_tokens") == (status == "incomplete"))
        #expect(response["output"]?.array?.count == 1, "a message, though it is empty")
    }

    @Test func aFailure() throws {
        var writer = try writer()
        _ = writer.opening()
        let events = writer.failure(RequestError(status: 503, "no memory"))
        #expect(events.map(\.name) == ["response.failed"])
        let response = try #require(try JSONValue.parse(events[0].data)["response"])
        #expect(response["status"]?.string == "failed" && response["error"]?["message"]?.string == "no memory")
    }

    /// A stream's events put together as clients do it: from the deltas, from the items, and from the last event.
    @Test func aStreamAddsUpToTheWhole() throws {
        for seed in 0..<200 as Range<UInt64> {
            let wantsScores = seed % 2 == 0
            let members = wantsScores ? #""include":["message.output_text.logprobs"],"top_logprobs":2"# : ""
            var source = RandomEvents(seed: seed, logProbabilityCount: wantsScores ? 2 : nil)
            let events = source.events(thinks: Bool.random(using: &source.random))
            var whole = try writer(members)
            var stream = try writer(members)
            for event in events { whole.take(event) }
            let data = try (stream.opening() + events.flatMap { stream.events(for: $0) }).map {
                try JSONValue.parse($0.data)
            }
            let answer = try JSONValue.parse(whole.answer())
            #expect(data.last?["response"] == answer)
            var texts: [Int64: String] = [:]
            var scores: [JSONValue] = []
            var items: [JSONValue] = []
            for event in data {
                switch event["type"]!.string! {
                case "response.reasoning_text.delta", "response.output_text.delta":
                    texts[event["output_index"]!.integer!, default: ""] += event["delta"]!.string!
                    scores += event["logprobs"]?.array ?? []
                case "response.output_item.done":
                    #expect(event["output_index"]?.integer == Int64(items.count))
                    items.append(event["item"]!)
                default: break
                }
            }
            #expect(.array(items) == answer["output"])
            for (index, item) in items.enumerated() {
                #expect(item["content"]?.array?[0]["text"]?.string == texts[Int64(index)] ?? "")
            }
            #expect(.array(scores) == items.last?["content"]?.array?[0]["logprobs"])
        }
    }
}
