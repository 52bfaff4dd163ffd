import SampleFiles
import Sigma
import SigmaConversion
import Testing

/// Experts of a layer in one tensor, with gate and up apart or fused: the same model file as with a tensor for each matrix.
@Suite struct FusedExpertsTests {
    private typealias Tensor = (name: String, type: String, shape: [Int], bytes: [UInt8])

    private let scratch: Scratch
    private let layers = 2
    private let experts = 4
    init() throws {
        scratch = try Scratch()
        try scratch.copyFixture("qwen3moe")
        try scratch.convert(to: "apart.gguf", type: .f32)
    }

    /// Puts the experts together as `names` of gate and up and of down say, and converts.
    private func stack(_ names: [String], fused: Bool, transposed: Bool = false) throws {
        let checkpoint = try Checkpoint(folder: scratch.path)
        func bytes(_ layer: Int, _ expert: Int, _ part: String) throws -> (shape: [Int], rows: [[UInt8]]) {
            let tensor = try #require(
                try checkpoint.find("model.layers.\(layer).mlp.experts.\(expert).\(part)_proj.weight"))
            let size = tensor.bytes.count / tensor.shape[0]
            return (tensor.shape, (0..<tensor.shape[0]).map { Array(tensor.bytes[$0 * size..<($0 + 1) * size]) })
        }
        func turned(_ rows: [[UInt8]]) -> [[UInt8]] {
            (0..<rows[0].count / 2).map { column in rows.flatMap { $0[2 * column..<2 * column + 2] } }
        }
        var tensors: [Tensor] = []
        for name in checkpoint.names where !name.contains(".experts.") {
            let tensor = try #require(try checkpoint.find(name))
            tensors.append((name, tensor.tensor.type, tensor.shape, Array(tensor.bytes)))
        }
        for layer in 0..<layers {
            let groups = fused ? [["gate", "up"], ["down"]] : [["gate"], ["up"], ["down"]]
            for (name, parts) in zip(names, groups) {
                var all: [UInt8] = []
                var shape: [Int] = []
                for expert in 0..<experts {
                    var rows = try parts.flatMap { try bytes(layer, expert, $0).rows }
                    if transposed { rows = turned(rows) }
                    shape = [experts, rows.count, rows[0].count / 2]
                    all += rows.joined()
                }
                tensors.append(("model.layers.\(layer).mlp.\(name)", "BF16", shape, all))
            }
        }
        var json = JSONWriter()
        var data: [UInt8] = []
        json.object { json in
            for tensor in tensors {
                json.object(tensor.name) {
                    $0.field("dtype", tensor.type)
                    $0.array("shape") { for extent in tensor.shape { $0.value(extent) } }
                    $0.array("data_offsets") {
                        $0.value(data.count)
                        $0.value(data.count + tensor.bytes.count)
                    }
                }
                data += tensor.bytes
            }
        }
        try scratch.write("model.safetensors", safetensors(json.text, data: data))
    }

    @Test(arguments: [
        (["experts.gate_up_proj", "experts.down_proj"], true),
        (["experts.gate_up_proj.weight", "experts.down_proj.weight"], true),
        (["experts.gate_proj", "experts.up_proj", "experts.down_proj"], false),
        (["switch_mlp.gate_proj.weight", "switch_mlp.up_proj.weight", "switch_mlp.down_proj.weight"], false),
    ]) func sameModel(_ names: [String], _ fused: Bool) throws {
        try stack(names, fused: fused)
        try scratch.convert(type: .f32)
        #expect(try scratch.read("out.gguf") == scratch.read("apart.gguf"))
    }

    /// The transposed layout of other versions would be read as nonsense.
    @Test func transposed() throws {
        try stack(["experts.gate_up_proj", "experts.down_proj"], fused: true, transposed: true)
        let error = sigmaError { try scratch.convert() }
        #expect(error?.kind == .damaged && error?.item == "model.layers.0.mlp.experts.gate_up_proj")
        #expect(error?.message.contains("transposed") == true && error?.remedy != nil)
    }

    /// Square tensors say nothing of their layout; a sister in the layer does.
    @Test func squareTensors() throws {
        try stack(["experts.gate_up_proj", "experts.down_proj"], fused: true)
        // The fixture: hidden size 32, 16 wide experts, so that the fused tensor is square.
        let c = try scratch.configuration().model
        #expect(c.hiddenSize == 2 * c.expertIntermediateSize)
        try scratch.convert(type: .f32)
        #expect(try scratch.read("out.gguf") == scratch.read("apart.gguf"))
        // Without down, nothing tells.
        var bytes = try scratch.read("model.safetensors")
        let name = Array("experts.down_proj".utf8)
        for place in bytes.indices.dropLast(name.count) where bytes[place..<place + name.count].elementsEqual(name) {
            bytes[place] = UInt8(ascii: "X")
        }
        try scratch.write("model.safetensors", bytes)
        let error = sigmaError { try scratch.convert() }
        #expect(error?.item?.contains("gate_up_proj") == true || error?.message.contains("missing") == true)
    }

    @Test func otherNumbersOfExperts() throws {
        try stack(["experts.gate_up_proj", "experts.down_proj"], fused: true)
        let error = sigmaError { try scratch.convert(overrides: ["num_experts=3", "num_experts_per_tok=1"]) }
        #expect(error?.kind == .damaged)
    }

    // MARK: GGUF

    private func fuse(_ model: inout PlainModel, layer: Int, type: WeightType) throws {
        let names = ["gate", "up"].map { "blk.\(layer).ffn_\($0)_exps.weight" }
        let parts = try names.map { name in try #require(model.tensors.first { $0.name == name }) }
        let (rows, count) = (parts[0].dimensions[1], parts[0].dimensions[2])
        let size = rows * type.rowBytes(parts[0].dimensions[0])
        var bytes: [UInt8] = []
        for expert in 0..<count { for part in parts { bytes += part.bytes[expert * size..<(expert + 1) * size] } }
        model.remove(names[1])
        model.change(names[0]) {
            $0.name = "blk.\(layer).ffn_gate_up_exps.weight"
            $0.dimensions[1] = 2 * rows
            $0.bytes = bytes
        }
    }

    @Test(arguments: [WeightType.q4_k, .q8_0, .f16]) func fusedInAFile(_ type: WeightType) throws {
        func converted(_ model: PlainModel) throws -> [UInt8] {
            try scratch.write("source.gguf", model.bytes)
            try Converter.convert(
                .init(input: scratch / "source.gguf", output: scratch / "native.gguf", overrides: .none, threads: 2))
            return try scratch.read("native.gguf")
        }
        var model = PlainModel { _ in type }
        let apart = try converted(model)
        try fuse(&model, layer: 1, type: type)
        #expect(try converted(model) == apart)
        try fuse(&model, layer: 0, type: type)
        #expect(try converted(model) == apart)
        model.change("blk.0.ffn_gate_up_exps.weight") {
            $0.dimensions[1] /= 2
            $0.bytes.removeLast($0.bytes.count / 2)
        }
        let error = sigmaError { _ = try converted(model) }
        #expect(error?.item == "blk.0.ffn_gate_up_exps.weight" && error?.message.contains("dimensions") == true)
        model.set(".expert_count", UInt32(2))
        #expect(sigmaError { _ = try converted(model) }?.message.contains("expected 2 experts, found 3") == true)
    }
}
