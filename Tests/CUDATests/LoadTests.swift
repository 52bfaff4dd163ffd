import SampleFiles
import Sigma
import SigmaConversion
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

extension BackendTests {
    /// Kernels, weights and memory while a model is loaded.
    @Suite struct Loading {
        private struct Failing: RecordReader {
            let reader: any RecordReader
            let damages: Bool
            let from: Int

            func read(_ count: Int, at offset: Int, into target: UnsafeMutableRawPointer) throws {
                try reader.read(count, at: offset, into: target)
                guard offset >= from else { return }
                guard damages else { throw SigmaError(.inputOutput, "the disk is gone") }
                target.storeBytes(of: target.load(as: UInt8.self) ^ 1, as: UInt8.self)
            }
        }

        private static func backend(_ cacheFolder: String?) throws -> CUDABackend {
            try CUDABackend(
                model: Models.demo(), rowLimit: 64, environment: Device.get().environment(cacheFolder: cacheFolder))
        }

        @Test func compiledKernelsAreKept() throws {
            let folder = try Scratch.folder() + "/cache/sigma"
            #expect(try Self.backend(folder).compiledKernels)
            #expect(try !Self.backend(folder).compiledKernels)
            let names = try FileManager.default.contentsOfDirectory(atPath: folder)
            #expect(names.count == 1 && names[0].hasPrefix("kernels-"))
            let path = folder + "/" + names[0]
            let good = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
            var flipped = good
            flipped[good.count - 1] ^= 0x40
            var foreign = good
            foreign.replaceSubrange(0..<5, with: Array("other".utf8))
            // Anything else is compiled again, and written again.
            for damaged in [flipped, Array(good.dropLast()), good + [0], foreign, [], Array("sigma".utf8)] {
                try Data(damaged).write(to: URL(fileURLWithPath: path))
                #expect(try Self.backend(folder).compiledKernels)
                #expect(Array(try Data(contentsOf: URL(fileURLWithPath: path))) == good)
                #expect(try !Self.backend(folder).compiledKernels)
            }
            // An image that the driver refuses, though the file is whole.
            try Device.get().fail("cuModuleLoadData", after: 1)
            #expect(try Self.backend(folder).compiledKernels)
        }

        @Test func withoutAFolderKernelsAreCompiledEachTime() throws {
            let file = try Scratch.folder() + "/file"
            try Data([1]).write(to: URL(fileURLWithPath: file))
            for folder in [nil, file, file + "/below", "/proc/nowhere"] {
                #expect(try Self.backend(folder).compiledKernels)
                #expect(try Self.backend(folder).compiledKernels)
            }
        }

        /// Types that only other tools' files have are named, and nothing is taken of the device.
        @Test func typesWithoutKernelsAreNamed() throws {
            let folder = try Scratch.folder()
            let types: [WeightType] = [.q4_k, .q5_k, .iq4_nl]
            let model = PlainModel { name in types[name.contains("ffn") ? 1 : name.contains("attn") ? 2 : 0] }
            try Data(model.bytes).write(to: URL(fileURLWithPath: folder + "/plain.gguf"))
            try Converter.convert(
                .init(input: folder + "/plain.gguf", output: folder + "/native.gguf", overrides: .none))
            let device = try Device.get()
            let before = device.allocated
            let reason = #expect(throws: CUDAUnavailable.self) {
                try device.backend(ModelFile(path: folder + "/native.gguf"))
            }
            #expect(reason == .weightTypes(["iq4_nl", "q5_k"]) && reason?.isExpected == false)
            #expect(device.allocated == before)
        }

        @Test func weightsThatAreNotWhatTheyWere() throws {
            let model = try Models.demo()
            let device = try Device.get()
            let before = device.allocated
            for from in [0, model.gguf.dataOffset + (model.byteCount - model.gguf.dataOffset) / 2] {
                for (damages, kind) in [(true, SigmaError.Kind.damaged), (false, .inputOutput)] {
                    for limits in [MemoryLimits.none, MemoryLimits(cache: .bytes(1 << 20))] {
                        let error = #expect(throws: SigmaError.self) {
                            _ = try device.backend(model, limits: limits) {
                                Failing(reader: try DirectFileReader($0.gguf.file), damages: damages, from: from)
                            }
                        }
                        #expect(error?.kind == kind)
                        if damages { #expect(error?.item?.isEmpty == false && error?.offset != nil) }
                    }
                }
            }
            #expect(device.allocated == before)
        }

        @Test func loadingEndsWhenTheCallerSays() throws {
            struct Enough: Error {}
            let device = try Device.get()
            let before = device.allocated
            #expect(throws: Enough.self) {
                _ = try CUDABackend(
                    model: Models.demo(), environment: device.environment(),
                    progress: { share in
                        #expect((0...1).contains(share))
                        if share > 0.3 { throw Enough() }
                    })
            }
            #expect(device.allocated == before)
        }

        @Test func everythingIsGivenBack() throws {
            let device = try Device.get()
            let model = try Models.demo()
            let before = device.allocated
            do {
                for limits in [MemoryLimits.none, MemoryLimits(cache: .bytes(1 << 20))] {
                    let backend = try device.backend(model, limits: limits)
                    #expect(device.allocated > before)
                    // What was planned is what is used, and not much more.
                    let plan = backend.memoryPlan
                    let experts =
                        plan.isResident ? plan.expertBytes : plan.slotCount * plan.slotBytes + plan.stagingBytes
                    let planned = plan.denseBytes + plan.workspaceBytes + experts
                    #expect(Int(device.allocated - before) <= planned + 64 << 10)
                    #expect(Int(device.allocated - before) >= planned - 64 << 10)
                    _ = try Runner(backend, model).logits(randomTokens(300, model), kvType: .f16)
                }
            }
            #expect(device.allocated == before)
        }

        /// Each call of loading fails once.
        @Test(arguments: [
            ("cuDevicePrimaryCtxRetain", 1), ("cuModuleGetFunction", 3), ("cuMemAlloc_v2", 1), ("cuMemAlloc_v2", 3),
            ("cuMemHostAlloc", 1), ("cuMemHostAlloc", 4), ("cuStreamCreate", 2), ("cuEventCreate", 2),
            ("cuMemcpyHtoD_v2", 2), ("cuMemcpyHtoDAsync_v2", 2), ("cuMemGetInfo_v2", 1),
        ]) func failingCalls(call: String, count: Int) throws {
            let device = try Device.get()
            let before = device.allocated
            device.fail(call, after: count)
            defer { device.recover() }
            do {
                _ = try device.backend(Models.demo())
                Issue.record("\(call) was not called so often")
            } catch let error as SigmaError {
                #expect(error.kind == .unavailable && error.message.contains("CUDA"))
            } catch let reason as CUDAUnavailable {
                #expect(!reason.isExpected && reason.error().kind == .unavailable)
            }
            #expect(device.allocated == before)
        }
    }

    /// Numbers of the full-size model on the devices that are meant.
    @Suite struct Plans {
        /// The real shape in 4.5 bits, head_dim 96: 56 layers of 96 experts.
        private static func plan(_ gibibytes: Double, blockBytes: Int = 56 * 2 * 4 * 256 * 192) -> DeviceMemoryPlan {
            DeviceMemoryPlan(
                availableBytes: Int(gibibytes * 0x1p30), denseBytes: 400 << 20, workspaceBytes: 700 << 20,
                expertBytes: 56 * 96 * 2_000_000, slotBytes: 2_000_000, recordsPerToken: 56, recordCount: 56 * 96,
                slotLimit: nil, stagingBytes: 2 * 96 * 2_000_000, kvBlockBytes: blockBytes, contextLength: 131_072)
        }

        @Test func theFullContextInEightBitsFitsFortyGigabytes() {
            // 40 GB, of which the driver has a part.
            let plan = Self.plan(36)
            #expect(plan.isResident && plan.slotCount == 0)
            #expect(plan.positionLimit(blockBytes: 56 * 2 * 4 * 256 * 102) >= 131_072)
        }

        @Test func whatDoesNotFitGetsSlots() throws {
            for size in [4.0, 6, 8, 12] {
                let plan = Self.plan(size)
                try plan.check(device: "")
                #expect(!plan.isResident && plan.slotCount >= 56)
                #expect(plan.kvLimit >= plan.kvBlockBytes)
                #expect(
                    plan.denseBytes + plan.workspaceBytes + plan.stagingBytes + plan.slotCount * plan.slotBytes
                        + plan.kvLimit <= plan.availableBytes)
            }
            #expect(Self.plan(12).slotCount > Self.plan(6).slotCount)
            var limited = Self.plan(36)
            limited.slotLimit = 1000
            #expect(!limited.isResident && limited.slotCount == 1000)
        }

        @Test func whatCannotWorkSaysWhatItNeeds() throws {
            let reason = #expect(throws: CUDAUnavailable.self) { try Self.plan(1.5).check(device: "a device") }
            guard case .tooLittleMemory("a device", let needed, let available) = reason else {
                Issue.record("\(String(describing: reason))")
                return
            }
            #expect(available == 3 << 29 && needed > available)
            // With that much it works.
            var enough = Self.plan(1.5)
            enough.availableBytes = needed + 2 * enough.kvBlockBytes + 56 * enough.slotBytes
            try enough.check(device: "")
        }
    }
}
