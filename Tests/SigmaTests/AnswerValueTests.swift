import Sigma
import Testing

/// Answers as values of a type.
@Suite struct AnswerValueTests {
    struct Sum: AnswerValue, Equatable {
        var sum: Int
        var words: [String]?

        static let jsonSchema = """
            {"type": "object", "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 9999},
             "words": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3}},
             "required": ["sum"], "additionalProperties": false}
            """
    }

    /// More than its limit holds.
    struct Long: AnswerValue {
        var text: String
        static let jsonSchema =
            #"{"type":"object","properties":{"text":{"type":"string","minLength":400}},"required":["text"],"additionalProperties":false}"#
    }

    /// A schema with instances that the type does not take.
    struct Wrong: AnswerValue {
        var number: Int
        static let jsonSchema = #"{"type":"object","additionalProperties":false}"#
    }

    struct Refused: AnswerValue {
        static let jsonSchema = #"{"properties":{"a":{"type":"array","uniqueItems":true}}}"#
    }

    private func session(_ temperature: Double = 0, limit: Int = 200, stop: [String] = []) throws -> Session {
        DemoModel.session(
            try DemoModel.engine(),
            options: GenerationOptions(
                temperature: temperature, seed: 3, thinks: false, maximumTokens: limit, stopStrings: stop))
    }

    @Test(arguments: [0, 1.5]) func aValue(temperature: Double) async throws {
        let session = try session(temperature)
        let first = try await session.respond(to: SessionTests.question, as: Sum.self)
        #expect((0...9999).contains(first.sum))
        #expect((first.words ?? []).count <= 3 && (first.words ?? []).allSatisfy { $0.unicodeScalars.count <= 4 })
        // The same text, decoded.
        let text = try await self.session(temperature).respond(
            to: SessionTests.question, constraint: .jsonSchema(Sum.jsonSchema))
        let json = try JSONValue.parse(text)
        #expect(json["sum"]?.integer == Int64(first.sum))
        #expect(json["words"]?.array?.map { $0.string } == first.words)
        // It is a turn like others.
        #expect(session.turns.count == 2 && session.turns[1].text == text)
    }

    @Test func aValueThatIsCut() async throws {
        let cut = try session(limit: 12)
        await #expect { _ = try await cut.respond(to: SessionTests.question, as: Long.self) } throws: {
            ($0 as? SigmaError)?.kind == .usage
        }
        // A stop string cuts it as well.
        let stopped = try session(stop: ["\""])
        await #expect { _ = try await stopped.respond(to: SessionTests.question, as: Sum.self) } throws: {
            ($0 as? SigmaError)?.kind == .usage
        }
    }

    @Test func schemasThatDoNotFit() async throws {
        let session = try session()
        await #expect(throws: DecodingError.self) {
            _ = try await session.respond(to: SessionTests.question, as: Wrong.self)
        }
        await #expect {
            _ = try await session.respond(to: SessionTests.question, as: Refused.self)
        } throws: { error in
            (error as? SigmaError)?.kind == .usage && (error as? SigmaError)?.item == "#/properties/a/uniqueItems"
        }
    }
}
