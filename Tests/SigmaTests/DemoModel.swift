import Sigma
import SigmaConversion
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The trained checkpoint of Models/demo, converted once for all tests of a run.
enum DemoModel {
    static let checkpoint = ReferenceFixture.packageRoot + "/Models/demo/checkpoint"

    private static let quantized = Result { try convert(.q8_0) }

    static func file() throws -> ModelFile { try quantized.get() }

    static func convert(_ type: WeightType) throws -> ModelFile {
        let output = FileManager.default.temporaryDirectory.path + "/sigma-demo-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: output) }
        try Converter.convert(
            Converter.Options(input: checkpoint, output: output, type: type, overrides: try Overrides()))
        return try ModelFile(path: output)
    }

    static func engine(threads: Int = 2, rowLimit: Int = 512, level: String? = nil, context: Int? = nil) throws
        -> Engine
    {
        let model = try file()
        let backend = try CPUBackend(
            model: model, threadCount: threads, instructionSet: level.flatMap { InstructionSet(named: $0) },
            rowLimit: rowLimit)
        return try Engine(model: model, backend: backend, contextLength: context)
    }

    static func session(_ engine: Engine, options: GenerationOptions = GenerationOptions(temperature: 0)) -> Session {
        SigmaModel(engine: engine, configuration: .init()).makeSession(options: options)
    }
}

/// What a stream gave, put together.
struct Answer: Equatable {
    var reasoning = ""
    var text = ""
    var statistics: Statistics?

    init(_ session: Session, _ message: String, options: GenerationOptions? = nil) async throws {
        for try await update in session.stream(to: message, options: options) {
            switch update {
            case .prefill: break
            case .reasoning(let piece): reasoning += piece
            case .text(let piece): text += piece
            case .finished(let end): statistics = end
            }
        }
    }

    /// Everything but times and memory.
    static func == (a: Answer, b: Answer) -> Bool {
        a.reasoning == b.reasoning && a.text == b.text && a.statistics?.reason == b.statistics?.reason
            && a.statistics?.generatedTokens == b.statistics?.generatedTokens
    }
}
