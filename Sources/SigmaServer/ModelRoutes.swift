import Hummingbird
import Sigma
import SigmaRequests

/// `/v1/models`.
struct ModelRoutes: Sendable {
    let model: ServedModel

    func list() throws -> Response {
        let host = try model.host()
        var json = JSONWriter()
        json.object { json in
            json.field("object", "list")
            json.array("data") { json in json.object { write(host, to: &$0) } }
        }
        return Response.json(json.text)
    }

    func one(_ name: String) throws -> Response {
        let host = try model.host()
        guard host.names.contains(name) else { throw RequestError.unknownModel(name) }
        var json = JSONWriter()
        json.object { write(host, to: &$0) }
        return Response.json(json.text)
    }

    private func write(_ host: ModelHost, to json: inout JSONWriter) {
        json.field("id", host.name)
        json.field("object", "model")
        json.field("created", host.created)
        json.field("owned_by", "sigma")
        json.field("max_model_len", host.context.positionLimit)
    }
}
