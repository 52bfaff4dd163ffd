import Sigma
import SigmaConversion
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Types by rules, and types by what they cost.
@Suite struct TypeMixTests {
    private static let checkpoint = packageRoot + "/Models/demo/checkpoint"

    private func parts() throws -> [WeightPlan.Part] {
        let input = try ConversionInput(Self.checkpoint, overrides: Overrides())
        return try WeightPlan(input.weights, input.configuration).parts
    }

    private static let types: [WeightType] = WeightType.allCases.filter { $0.isTarget && $0.isQuantized }

    /// Errors fall fast with the bits.
    private func error(_ type: WeightType) -> Double {
        let bits = Double(8 * type.blockBytes) / Double(type.blockLength)
        return 1 / (bits * bits * bits * bits * bits * bits)
    }

    private func sensitivity(_ parts: [WeightPlan.Part], _ divergence: (Int) -> Double) -> Sensitivity {
        Sensitivity(
            modelName: "demo", tokenCount: 100,
            parts: parts.enumerated().map { index, part in
                Sensitivity.Part(
                    name: part.name, matrices: part.matrices.count, rows: part.rows, columns: part.columns, type: .q4_0,
                    divergence: divergence(index),
                    errors: Dictionary(uniqueKeysWithValues: Self.types.map { ($0, error($0)) }))
            })
    }

    @discardableResult
    private func convert(
        _ scratch: Scratch, _ output: String, type: WeightType? = nil, rules: [TypeChoice.Rule] = [],
        mix: Converter.Mix? = nil, form: Converter.Options.Form = .native
    ) throws -> Converter.Summary {
        try Converter.convert(
            Converter.Options(
                input: Self.checkpoint, output: scratch / output, form: form, type: type, rules: rules, mix: mix,
                overrides: Overrides()))
    }

    // MARK: - Rules

    @Test func theLastRuleThatMatchesCounts() throws {
        let scratch = try Scratch()
        let summary = try convert(
            scratch, "ruled.gguf", type: .q4_0,
            rules: [
                .init(pattern: "*.attn_*.weight", type: .q8_0), .init(pattern: "blk.1.attn_v.weight", type: .bf16),
                .init(pattern: "*ffn_down_exps*", type: .q6_k),
            ])
        let model = try ModelFile(path: scratch / "ruled.gguf")
        for (index, layer) in model.weights.layers.enumerated() {
            #expect(layer.query.type == .q8_0 && layer.output.type == .q8_0)
            #expect(layer.value.type == (index == 1 ? .bf16 : .q8_0))
            guard case .mixture(_, _, let experts, _) = layer.feedForward else { continue }
            #expect(experts.layout.gateType == .q4_0 && experts.layout.downType == .q6_k)
        }
        #expect(model.weights.embedding.type == .q4_0 && model.weights.head.type == .q6_k)
        #expect(summary.parts.first { $0.name == "blk.1.attn_v.weight" }?.type == .bf16)
        #expect(summary.mix == nil)
    }

    @Test(arguments: [
        ("a", "a", true), ("a", "ab", false), ("*", "", true), ("a*", "abc", true), ("*c", "abc", true),
        ("a*c", "abc", true), ("a*b*c", "axbxbc", true), ("a*b*c", "axc", false), ("*b*", "abc", true),
        ("ab*ba", "aba", false), ("", "", true), ("**", "x", true), ("a**c", "ac", true), ("*aa*aa", "aaa", false),
    ]) func starsStandForAnyCharacters(_ pattern: String, _ name: String, _ matches: Bool) throws {
        #expect(TypeChoice.Rule(pattern: pattern, type: .q8_0).matches(name) == matches)
    }

    @Test func aRuleThatMatchesNothingIsRefused() throws {
        let scratch = try Scratch()
        let error = sigmaError { try convert(scratch, "no.gguf", rules: [.init(pattern: "blk.9.*", type: .q8_0)]) }
        #expect(error?.kind == .usage)
        #expect(scratch.files == [])
    }

    // MARK: - Mixes

    /// Against all combinations, for few parts of few types: the greedy choice costs at most a step more than the best one.
    @Test func aMixCostsLittleMoreThanTheBest() throws {
        let parts = Array(try parts().prefix(5))
        var random = SplitMix64(state: 3)
        for _ in 0..<20 {
            let costs = parts.map { _ in Double(random.next() % 1000 + 1) / 1e5 }
            let sensitivity = sensitivity(parts) { costs[$0] }
            let fixed = [WeightType?](repeating: nil, count: parts.count)
            let least = TypeMix.leastBytes(parts, sensitivity, fixed: fixed)
            let budget = least + Int(random.next() % UInt64(least))
            let mix = try #require(TypeMix(parts, sensitivity, fixed: fixed, budget: budget))
            #expect(mix.byteCount <= budget && mix.types.count == parts.count)
            // Every combination.
            let types = Self.types + [.bf16]
            var best = Double.infinity
            var place = [Int](repeating: 0, count: parts.count)
            func divergence(_ index: Int, _ type: WeightType) -> Double { sensitivity.parts[index].divergence(type)! }
            while true {
                let chosen = place.map { types[$0] }
                let bytes = zip(parts, chosen).reduce(0) { $0 + $1.0.byteCount($1.1) }
                if bytes <= budget {
                    best = min(best, chosen.enumerated().reduce(0) { $0 + divergence($1.offset, $1.element) })
                }
                guard let next = place.firstIndex(where: { $0 + 1 < types.count }) else { break }
                place[next] += 1
                for index in 0..<next { place[index] = 0 }
            }
            // What one part's steps save is lost at most.
            let largest = parts.indices.map { part in Self.types.map { divergence(part, $0) }.max()! }.max()!
            #expect(mix.divergence >= best - 1e-12 && mix.divergence <= best + largest)
        }
    }

    @Test func whatMattersGetsMoreBits() throws {
        let parts = try parts()
        let sensitivity = sensitivity(parts) { $0 == 3 ? 1e-2 : 1e-6 }
        let fixed = [WeightType?](repeating: nil, count: parts.count)
        let least = TypeMix.leastBytes(parts, sensitivity, fixed: fixed)
        let mix = try #require(TypeMix(parts, sensitivity, fixed: fixed, budget: least * 11 / 10))
        let smallest = Self.types.map { $0.matrixBytes(rows: 16, columns: 256) }.min()!
        #expect(mix.types[3].matrixBytes(rows: 16, columns: 256) > smallest)
        #expect(TypeMix(parts, sensitivity, fixed: fixed, budget: least - 1) == nil)
        // What is settled stays.
        var settled = fixed
        settled[3] = .q4_0
        #expect(try #require(TypeMix(parts, sensitivity, fixed: settled, budget: least * 2)).types[3] == .q4_0)
        // All that there is: the source's own type.
        let all = try #require(TypeMix(parts, sensitivity, fixed: fixed, budget: 1 << 40))
        #expect(all.types.allSatisfy { $0 == .bf16 } && all.divergence == 0)
    }

    @Test(arguments: [Converter.Options.Form.native, .plainGGUF])
    func filesHoldTheirLimit(_ form: Converter.Options.Form) throws {
        let scratch = try Scratch()
        let file = scratch / "demo.sensitivity"
        let parts = try parts()
        try scratch.write("demo.sensitivity", sensitivity(parts) { Double($0 + 1) * 1e-5 }.json)
        for megabytes in [5, 6, 8] {
            let limit = megabytes << 20
            let summary = try convert(
                scratch, "mixed.gguf", mix: .init(sensitivity: file, limit: .bytes(limit)), form: form)
            let size = try scratch.read("mixed.gguf").count
            #expect(size <= limit && size > limit * 9 / 10)
            #expect(summary.mix?.types == summary.parts.map(\.type))
            #expect(Set(summary.parts.map(\.type)).count > 1)
        }
        let small = sigmaError {
            try convert(scratch, "small.gguf", mix: .init(sensitivity: file, limit: .bytes(1 << 20)), form: form)
        }
        #expect(small?.kind == .usage && small?.message.contains("1048576") == true)
        // What is said to be enough is.
        let enough = try #require(small?.remedy?.description.firstMatch(of: /[0-9]+/).flatMap { Int($0.0) })
        try convert(scratch, "smallest.gguf", mix: .init(sensitivity: file, limit: .bytes(enough)), form: form)
        #expect(try scratch.read("smallest.gguf").count <= enough)
    }

    @Test func bitsAreCountedOverTheWeights() throws {
        let scratch = try Scratch()
        let parts = try parts()
        try scratch.write("demo.sensitivity", sensitivity(parts) { Double($0 % 7 + 1) * 1e-5 }.json)
        let mix = Converter.Mix(sensitivity: scratch / "demo.sensitivity", limit: .bits(5.5))
        let summary = try convert(
            scratch, "mixed.gguf", rules: [.init(pattern: "output.weight", type: .q8_0)], mix: mix)
        let weights = summary.parts.reduce(0) { $0 + $1.weightCount }
        let bits = 8 * Double(try #require(summary.mix).byteCount) / Double(weights)
        #expect(bits <= 5.5 && bits > 5.3)
        #expect(try ModelFile(path: scratch / "mixed.gguf").weights.head.type == .q8_0)
        let few = sigmaError {
            try convert(scratch, "few.gguf", mix: .init(sensitivity: mix.sensitivity, limit: .bits(1)))
        }
        #expect(few?.kind == .usage)
        #expect(few?.remedy?.description.contains("--bits") == true)
        // Another model's measurements are used with a warning, and not written over.
        var warnings: [String] = []
        try scratch.write(
            "demo.sensitivity",
            String(decoding: try scratch.read("demo.sensitivity"), as: UTF8.self).replacing(
                "\"demo\"", with: "\"other\""))
        try Converter.convert(
            Converter.Options(
                input: Self.checkpoint, output: scratch / "warned.gguf",
                rules: [.init(pattern: "output.weight", type: .q4_k)], mix: mix, overrides: Overrides()),
            warn: { warnings.append($0) })
        #expect(warnings.contains { $0.contains("'other'") })
        let over = sigmaError { try convert(scratch, "demo.sensitivity", mix: mix) }
        #expect(over?.kind == .usage)
        // Weights that are quantized already have no types to choose among.
        try convert(scratch, "quantized.gguf", type: .q8_0)
        let again = sigmaError {
            try Converter.convert(
                Converter.Options(
                    input: scratch / "quantized.gguf", output: scratch / "again.gguf", mix: mix, overrides: Overrides())
            )
        }
        #expect(again?.kind == .usage)
    }

    // MARK: - The file

    @Test func aFileComesBackAsItWas() throws {
        let scratch = try Scratch()
        let parts = try parts()
        let written = sensitivity(parts) { 1 / Double($0 + 3) }
        try scratch.write("a", written.json)
        #expect(try Sensitivity(path: scratch / "a", for: parts) == written)
    }

    @Test func damagedFilesAreNamed() throws {
        let scratch = try Scratch()
        let parts = try parts()
        let good = sensitivity(parts) { _ in 1e-4 }.json
        func refused(_ text: String) throws -> SigmaError? {
            try scratch.write("bad", text)
            return sigmaError { _ = try Sensitivity(path: scratch / "bad", for: parts) }
        }
        for (old, new) in [
            ("sigma-sensitivity", "other"), ("\"version\":1", "\"version\":2"), ("\"tokens\":100", "\"tokens\":0"),
            ("\"kl\":0.0001", "\"kl\":-1"), ("\"kl\":0.0001", "\"kl\":1e308"), ("\"type\":\"q4_0\"", "\"type\":\"q9\""),
            ("\"type\":\"q4_0\"", "\"type\":\"f16\""), ("\"rows\":", "\"rows\":1"),
            ("\"errors\":{", "\"errors\":{\"x\":1,"),
            ("\"name\":\"blk.0.", "\"name\":\"blk.1."), ("\"kl\":", "\"kl\":\"x\",\"z\":"),
            ("\"matrices\":1", "\"matrices\":2"),
        ] {
            let place = try #require(good.firstRange(of: old))
            let error = try refused(String(good[..<place.lowerBound]) + new + String(good[place.upperBound...]))
            #expect(error?.kind == .damaged && error?.remedy != nil, "\(old)")
        }
        for length in stride(from: 0, to: good.utf8.count - 2, by: 997) {
            #expect(try refused(String(good.prefix(length)))?.kind == .damaged)
        }
        #expect(sigmaError { _ = try Sensitivity(path: scratch / "missing", for: parts) }?.kind == .noInput)
    }
}
