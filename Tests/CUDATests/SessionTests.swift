import Sigma
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

extension BackendTests {
    /// Conversations on the device: kept, side by side, and after everything that can fail.
    @Suite struct Sessions {
        static let question = "What is 347 + 586?"

        private static func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }

        @Test(arguments: KVType.allCases) func savedAndRestored(kvType: KVType) async throws {
            let folder = try Scratch.folder()
            let (path, again) = (folder + "/a.session", folder + "/b.session")
            // Beyond a block of 256 positions.
            let long = (0..<40).map { "apples \($0)" }.joined(separator: ", ") + ": what is 12 + 35?"
            let model = try Models.demo()
            let engine = try Device.get().engine(model)
            for message in kvType == .q8_0 ? [Self.question, long] : [Self.question] {
                let first = session(engine, kvType: kvType)
                _ = try await answer(first, message)
                try first.save(to: path)
                // Another engine, and a session with other words in it.
                let second = session(try Device.get().engine(model), kvType: kvType)
                _ = try await answer(second, "What is 99 - 1?")
                try second.restore(from: URL(fileURLWithPath: path))
                #expect(second.turns == first.turns && second.cachedTokens == first.cachedTokens)
                try second.save(to: again)
                #expect(try Self.bytes(again) == Self.bytes(path))
                #expect(try await answer(second, "What is 12 + 9?") == answer(first, "What is 12 + 9?"))
            }
            // Its keys and values lie otherwise than the CPU's, which computes them again.
            let processor = session(
                try Engine(model: model, backend: CPUBackend(model: model, threadCount: 1)), kvType: kvType)
            try processor.restore(from: URL(fileURLWithPath: path))
            #expect(processor.cachedTokens.count == 0 && !processor.turns.isEmpty)
        }

        @Test(arguments: KVType.allCases) func forgottenPositionsAreNotStored(kvType: KVType) throws {
            let model = try Models.demo()
            let backend = try Device.get().backend(model)
            func stored(_ length: Int, after tokens: [Int32]) throws -> [[UInt8]] {
                let sequence = try backend.makeSequence(kvType: kvType)
                let pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
                let batch = Batch()
                batch.append(tokens[...], to: sequence)
                _ = try pass.run(batch, isCancelled: { false }, readOut: { _ in })
                sequence.truncate(to: length)
                var blocks: [[UInt8]] = []
                try sequence.forEachStoredBlock { blocks.append(Array($0)) }
                #expect(blocks.map(\.count) == sequence.storedBlockSizes(length: length))
                return blocks
            }
            let tokens = randomTokens(40, model)
            for length in [16, 21] {
                let expected = try stored(length, after: Array(tokens.prefix(length)))
                #expect(expected.joined().contains { $0 != 0 })
                #expect(try stored(length, after: tokens) == expected)
                // Memory that somebody else's positions were in.
                #expect(try stored(length, after: randomTokens(60, model, seed: 3)) != expected)
                #expect(try stored(length, after: Array(tokens.prefix(length))) == expected)
            }
        }

        @Test func sideBySide() async throws {
            let engine = try Device.get().engine(Models.demo())
            let questions = [Self.question, "What is 12 + 9?", "What is 5 + 6?"]
            var alone: [[String]] = []
            for question in questions { alone.append(try await answer(session(engine), question)) }
            let together = try await withThrowingTaskGroup(of: (Int, [String]).self) { group in
                for (index, question) in questions.enumerated() {
                    group.addTask { (index, try await answer(session(engine), question)) }
                }
                return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
            }
            for (index, expected) in alone.enumerated() { #expect(together[index] == expected) }
        }

        @Test func cancelledStepsLeaveTheSequenceAsItWas() throws {
            let model = try Models.demo()
            let backend = try Device.get().backend(model)
            let tokens = randomTokens(30, model)
            let expected = try Runner(backend, model).logits(tokens, pieces: [20, 10], kvType: .f16)
            let pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
            let sequence = try backend.makeSequence(kvType: .f16)
            var found: [Float] = []
            for (piece, garbage) in [(tokens[..<20], 70), (tokens[20...], 1)] {
                // Others' tokens, up to each layer.
                for layers in 0..<model.configuration.layerCount {
                    let batch = Batch()
                    let others = randomTokens(garbage, model, seed: 9)
                    batch.append(others[...], to: sequence)
                    var asked = 0
                    let isDone = try pass.run(
                        batch,
                        isCancelled: {
                            asked += 1
                            return asked > layers
                        }, readOut: { _ in })
                    #expect(!isDone && sequence.length == tokens.count - 30 + piece.startIndex)
                }
                let batch = Batch()
                batch.append(piece, to: sequence)
                _ = try pass.run(batch, isCancelled: { false }) { backend in
                    backend.forEachRow(of: 0..<piece.count) { found += $1 }
                }
            }
            #expect(found == expected)
        }

        /// Every call that a step makes fails once, early and late: the request fails, and the session goes on as if it had not been made.
        @Test(arguments: [
            "cuLaunchKernel", "cuGraphLaunch", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize",
            "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuMemAlloc_v2",
            "cuMemcpyHtoD_v2",
        ]) func failuresLeaveTheSessionUsable(call: String) async throws {
            let device = try Device.get()
            let model = try Models.demo()
            let expected = try await answer(session(try device.engine(model)), Self.question)
            for count in [1, 5] {
                // A new engine, so that graphs and blocks are made anew.
                let engine = try device.engine(model)
                let session = session(engine)
                device.fail(call, after: count)
                var failures = 0
                do { _ = try await answer(session, Self.question) } catch let error as SigmaError {
                    failures += 1
                    #expect(error.kind == .unavailable, "\(error)")
                    #expect(error.message.contains("CUDA"))
                }
                device.recover()
                // Of some there are fewer in a whole answer.
                #expect(failures == 1 || count > 1, "\(call) was not called")
                if failures == 1 { #expect(try await answer(session, Self.question) == expected) }
            }
        }

        @Test func lostDevicesFailEveryRequestAndNothingElse() async throws {
            let device = try Device.get()
            let engine = try device.engine(try Models.demo())
            let session = session(engine)
            let expected = try await answer(session, Self.question)
            #expect(!expected[1].isEmpty)
            device.failAlways("cuGraphLaunch", after: 3)
            for _ in 0..<3 {
                let error = await #expect(throws: SigmaError.self) { try await answer(session, "What is 12 + 9?") }
                #expect(error?.kind == .unavailable)
            }
            device.recover()
            #expect(try await !answer(session, "What is 12 + 9?")[1].isEmpty)
        }

        @Test func sequencesEndWhereTheDevicesMemoryEnds() throws {
            let model = try Models.demo()
            let block = model.configuration.kvBlockBytes(.f16)
            // With few rows, whose activations are the same whatever there is.
            let rows = 64
            let all = try Device.get().backend(model, rowLimit: rows).memoryPlan
            // Room for two blocks of 16 bits beside the slots of a token.
            let slots = all.recordsPerToken * all.slotBytes
            let budget = all.denseBytes + all.workspaceBytes + all.stagingBytes + slots + 2 * block
            let backend = try Device.get().backend(
                model, limits: MemoryLimits(memory: budget, cache: .bytes(slots)), rowLimit: rows)
            #expect(backend.positionLimit(kvType: .f16) == 512)
            let sequence = try backend.makeSequence(kvType: .f16)
            #expect(backend.hasRoom(for: sequence, positions: 512) && !backend.hasRoom(for: sequence, positions: 513))
            let tokens = randomTokens(300, model)
            let pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
            let batch = Batch()
            for start in stride(from: 0, to: tokens.count, by: 60) {
                batch.removeAll()
                batch.append(tokens[start..<(start + 60)], to: sequence)
                _ = try pass.run(batch, isCancelled: { false }, readOut: { _ in })
            }
            let other = try backend.makeSequence(kvType: .f16)
            #expect(!backend.hasRoom(for: other, positions: 1) && backend.hasRoom(for: sequence, positions: 512))
            #expect(backend.room(for: other, limit: 1, beside: Batch()) == 0)
            batch.removeAll()
            batch.append(tokens[..<1], to: other)
            batch.append(tokens[..<1], to: sequence)
            let error = #expect(throws: SigmaError.self) {
                try pass.run(batch, isCancelled: { false }, readOut: { _ in })
            }
            #expect(error?.kind == .unavailable && sequence.length == 300 && other.length == 0)
            // A block that was taken in vain was given back: there is as much room as before.
            #expect(backend.hasRoom(for: sequence, positions: 512))
            batch.removeAll()
            batch.append(tokens[..<1], to: sequence)
            _ = try pass.run(batch, isCancelled: { false }, readOut: { _ in })
            #expect(sequence.length == 301)
        }
    }
}
