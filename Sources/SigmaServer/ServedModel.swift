import Sigma
import SigmaRequests
import Synchronization
import SystemLibrary

/// A loaded model and what serving it needs. Immutable.
struct ModelHost: Sendable {
    let engine: Engine
    let context: RequestContext
    let admission: Admission
    let kvType: KVType
    /// Seconds since 1970 at which it was loaded.
    let created = Int(time(nil))
    /// The name that answers have.
    let name: String
    /// Names by which clients may ask for it.
    let names: Set<String>

    init(_ engine: Engine, _ configuration: ServerConfiguration) {
        self.engine = engine
        kvType = configuration.kvType
        context = RequestContext(engine, kvType: configuration.kvType, drafts: configuration.drafts)
        let file = engine.modelPath.split(separator: "/").last.map(String.init) ?? ""
        let own = engine.model.name
        name = configuration.alias ?? (own.isEmpty ? file : own)
        names = [name, own, file, file.hasSuffix(".gguf") ? String(file.dropLast(5)) : file, "sigma", "default"]
        let kvType = configuration.kvType
        admission = Admission(
            AdmissionQueue.Limits(
                parallel: configuration.parallel, requests: configuration.queuedRequests,
                tokens: configuration.queuedTokens)
        ) { [weak engine] positions in engine?.makeRoom(positions: positions, kvType: kvType) ?? true }
    }
}

/// The model from the server's start to its end.
final class ServedModel: Sendable {
    private enum State {
        case loading
        case ready(ModelHost)
        /// Requests are still answered, while /readyz tells senders to go elsewhere.
        case leaving(ModelHost)
        /// No new requests; those that run go on.
        case draining(ModelHost?)
    }

    private let state = Mutex(State.loading)

    func loaded(_ host: ModelHost) {
        state.withLock { if case .loading = $0 { $0 = .ready(host) } }
    }

    func leave() {
        state.withLock { if case .ready(let host) = $0 { $0 = .leaving(host) } }
    }

    func drain() {
        state.withLock { state in
            switch state {
            case .loading: state = .draining(nil)
            case .ready(let host), .leaving(let host): state = .draining(host)
            case .draining: break
            }
        }
    }

    /// Whether new requests should come here.
    var isLeaving: Bool { state.withLock { if case .leaving = $0 { true } else { false } } }

    /// For a new request.
    /// - Throws: `Refusal` while there is none for it.
    func host() throws -> ModelHost {
        try state.withLock { state in
            switch state {
            case .loading: throw Refusal.loading
            case .ready(let host), .leaving(let host): host
            case .draining: throw Refusal.draining
            }
        }
    }

    /// For readers only; nil while it loads.
    var anyHost: ModelHost? {
        state.withLock { state in
            switch state {
            case .loading: nil
            case .ready(let host), .leaving(let host): host
            case .draining(let host): host
            }
        }
    }
}
