import Sigma
import SigmaRequests
import Testing

/// What bodies say that answers must be.
@Suite struct ConstraintFieldTests {
    private static let schema = #"{"type":"object","properties":{"a":{"multipleOf":0.1}}}"#

    @Test(arguments: [
        (#""response_format":{"type":"json_object"}"#, Constraint.jsonObject, "response_format"),
        (
            #""response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"description":"d","schema":\#(schema)}}"#,
            .jsonSchema(schema), "response_format.json_schema.schema"
        ),
        (#""guided_json":\#(schema)"#, .jsonSchema(schema), "guided_json"),
        (#""guided_json":"{\"type\":\"null\"}""#, .jsonSchema(#"{"type":"null"}"#), "guided_json"),
        (#""guided_regex":"[0-9]+""#, .regex("[0-9]+"), "guided_regex"),
        (#""guided_choice":["a","b"]"#, .choice(["a", "b"]), "guided_choice"),
        (#""structured_outputs":{"json":true}"#, .jsonSchema("true"), "structured_outputs.json"),
        (#""structured_outputs":{"regex":"a"}"#, .regex("a"), "structured_outputs.regex"),
        (#""structured_outputs":{"choice":["x"]}"#, .choice(["x"]), "structured_outputs.choice"),
        (#""structured_outputs":{"json_object":true}"#, .jsonObject, "structured_outputs.json_object"),
    ])
    func everySpelling(members: String, constraint: Constraint, param: String) throws {
        let chat = try ChatCompletionBody.asking(members)
        #expect(chat.settings.constraint?.constraint == constraint && chat.settings.constraint?.param == param)
        let completion = try CompletionBody(text: #"{"prompt":"x",\#(members)}"#)
        #expect(completion.settings.constraint == chat.settings.constraint)
    }

    /// Numbers reach the schema as they are written, and other fields as doubles.
    @Test func numbersInSchemasAreExact() throws {
        let number = "0.30000000000000000000000000000000000001"
        let body = try ChatCompletionBody.asking(
            #""temperature":0.25,"guided_json":{"const":\#(number),"maximum":12345678901234567890123}"#)
        #expect(
            body.settings.constraint?.constraint
                == .jsonSchema(#"{"const":\#(number),"maximum":12345678901234567890123}"#))
        #expect(body.settings.options.temperature == 0.25)
        for text in [#""temperature":1e999"#, #""guided_json":{"const":1e999}"#] {
            let error = try #require(refusal { _ = try ChatCompletionBody.asking(text) })
            #expect(error.status == 400 && error.code == "invalid_json")
        }
    }

    @Test func whatDoesNotCompileIsRefusedWithItsPlace() throws {
        let context = try Vocabulary.context()
        let schema = #"{"properties":{"a":{"type":"array","uniqueItems":true}}}"#
        let body = try ChatCompletionBody.asking(
            #""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":\#(schema)}}"#)
        let error = try #require(refusal { _ = try body.resolve(in: context) })
        #expect(error.status == 400 && error.code == "invalid_constraint")
        #expect(error.param == "response_format.json_schema.schema")
        #expect(error.message.contains("#/properties/a/uniqueItems"))
        let expression = try ChatCompletionBody.asking(#""guided_regex":"(a""#)
        #expect(refusal { _ = try expression.resolve(in: context) }?.param == "guided_regex")
    }

    @Test func requestsCarryTheConstraint() throws {
        let context = try Vocabulary.context()
        let body = try ChatCompletionBody.asking(#""n":2,"guided_choice":["a"]"#)
        let requests = try body.resolve(in: context)
        #expect(requests.count == 2 && requests.allSatisfy { $0.constraint != nil })
        #expect(try ChatCompletionBody.asking().resolve(in: context)[0].constraint == nil)
    }
}
