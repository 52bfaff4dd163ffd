import Foundation
import Sigma
import SystemLibrary
import Testing

/// What loading a model, asking it and dropping it leaves in memory. The whole process is measured, so it is run alone:
///
///     SIGMA_LOADS=2000 swift test --traits Server --filter LoadMemoryTests
@Suite(.serialized) struct LoadMemoryTests {
    static let loads = ProcessInfo.processInfo.environment["SIGMA_LOADS"].flatMap(Int.init)

    /// Bytes that are allocated and not freed; nil where the C library does not tell. Chunks that threads keep for their next use count.
    private func heapBytes() -> Int? {
        typealias Function = @convention(c) (Int32, UnsafeMutablePointer<FILE>) -> Int32
        guard let symbol = dlsym(nil, "malloc_info"), let file = tmpfile() else { return nil }
        defer { fclose(file) }
        guard unsafeBitCast(symbol, to: Function.self)(0, file) == 0 else { return nil }
        rewind(file)
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let text = String(decoding: bytes[..<fread(&bytes, 1, bytes.count, file)], as: UTF8.self)
        // The sums stand behind the parts.
        func last(_ element: String) -> Int? {
            guard let place = text.range(of: element, options: .backwards),
                let size = text[place.upperBound...].firstRange(of: "size=\"")
            else { return nil }
            return Int(text[size.upperBound...].prefix { $0.isNumber })
        }
        guard let system = last("<system type=\"current\""), let fast = last("<total type=\"fast\""),
            let rest = last("<total type=\"rest\""), let mapped = last("<total type=\"mmap\"")
        else { return nil }
        return system - fast - rest + mapped
    }

    @Test(.enabled(if: loads != nil), arguments: [false, true]) func nothingStays(hasCache: Bool) async throws {
        let count = try #require(Self.loads)
        try await LoadTests.withFile { path in
            // A cache of some of the experts has threads, slots and weights of its own.
            let cache: SigmaModel.Configuration.ExpertCache = hasCache ? .size(.mebibytes(2)) : .auto
            let configuration = SigmaModel.Configuration(expertCache: cache, threads: 2, backend: .cpu)
            func load(_ number: Int) async throws {
                let model = try await SigmaModel.load(from: path, configuration: configuration)
                let options = GenerationOptions(temperature: 0, thinks: false, maximumTokens: 2)
                _ = try await model.makeSession(options: options).respond(to: "What is \(number % 10) + 3?")
            }
            /// When all threads of what was dropped have ended.
            func settled() async throws -> (heap: Int?, resident: Int, descriptors: Int) {
                try await Task.sleep(for: .milliseconds(300))
                let descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
                return (heapBytes(), AvailableMemory.ownBytes, descriptors)
            }
            // Tables that stay are made by the first ones.
            for number in 0..<min(count, 200) { try await load(number) }
            let before = try await settled()
            for number in 0..<count { try await load(number) }
            let after = try await settled()
            print("\(count) loads\(hasCache ? " with an expert cache" : ""): \(before) -> \(after)")
            if let first = before.heap, let last = after.heap { #expect(last - first < 32 * count + 65536) }
            #expect(after.resident - before.resident < 256 * count + (4 << 20))
            #expect(after.descriptors <= before.descriptors)
        }
    }
}
