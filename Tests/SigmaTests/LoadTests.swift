import Dispatch
import Sigma
import SigmaConversion
import Synchronization
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Loading: progress, cancellation, checksums, refusals.
@Suite struct LoadTests {
    static func withFile(_ body: (String) async throws -> Void) async throws {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-load-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Converter.convert(
            Converter.Options(input: DemoModel.checkpoint, output: path, type: .q8_0, overrides: try Overrides()))
        try await body(path)
    }

    @Test func progressGoesFrom0To1() async throws {
        try await Self.withFile { path in
            for verifies in [false, true] {
                let seen = Mutex<[Double]>([])
                let model = try await SigmaModel.load(
                    from: URL(fileURLWithPath: path), configuration: .init(threads: 1, verifiesChecksums: verifies),
                    progress: { done in seen.withLock { $0.append(done) } })
                let values = seen.withLock { $0 }
                #expect(values.first == 0 && values.last == 1 && values == values.sorted())
                if verifies { #expect(values.count > 10) }
                #expect(model.contextLength > 0)
            }
        }
    }

    @Test func cancellationEndsTheLoading() async throws {
        try await Self.withFile { path in
            let calls = Mutex(0)
            let mayGoOn = DispatchSemaphore(value: 0)
            let task = Task {
                try await SigmaModel.load(
                    from: path, configuration: .init(verifiesChecksums: true),
                    progress: { done in
                        calls.withLock { $0 += 1 }
                        // In the middle of the file, until the task is cancelled.
                        if done > 0 { mayGoOn.wait() }
                    })
            }
            while calls.withLock({ $0 }) < 2 { try await Task.sleep(for: .milliseconds(1)) }
            task.cancel()
            mayGoOn.signal()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(calls.withLock { $0 } == 2)
        }
    }

    @Test func damageIsFoundIfItIsLookedFor() async throws {
        try await Self.withFile { path in
            var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            bytes[bytes.count - 100_000] ^= 1
            try bytes.write(to: URL(fileURLWithPath: path))
            _ = try await SigmaModel.load(from: path)
            let error = await #expect(throws: SigmaError.self) {
                try await SigmaModel.load(from: path, configuration: .init(verifiesChecksums: true))
            }
            #expect(error?.kind == .damaged)
        }
    }

    @Test func whatCannotBeHadIsRefused() async throws {
        try await Self.withFile { path in
            for (configuration, kind) in [
                (.init(threads: 0), .usage), (.init(contextLength: 0), .usage),
                (.init(memory: .mebibytes(1)), .unavailable),
            ] as [(SigmaModel.Configuration, SigmaError.Kind)] {
                let error = await #expect(throws: SigmaError.self) {
                    try await SigmaModel.load(from: path, configuration: configuration)
                }
                #expect(error?.kind == kind)
            }
            let error = await #expect(throws: SigmaError.self) {
                try await SigmaModel.load(from: URL(string: "https://example.org/model.gguf")!)
            }
            #expect(error?.kind == .usage)
        }
    }
}
