import Sigma
import SigmaConversion
import Testing

/// Checkpoints of 8-bit floats with a scale for each block.
@Suite struct Float8Tests {
    let scratch: Scratch
    init() throws {
        scratch = try Scratch()
        try scratch.copyFixture("qwen3-dense")
    }

    private static let config =
        #"{"quant_method":"fp8","fmt":"e4m3","activation_scheme":"dynamic","weight_block_size":[16,24]}"#

    /// Rewrites the checkpoint: the projections named so are random bytes and scales, the others as they were.
    ///
    /// - Returns: the bytes and scales by tensor.
    private func write(
        _ names: [String], scaleShape: (_ shape: [Int]) -> [Int], byte: (Int) -> UInt8 = { UInt8($0 * 37 % 251) & 0xf7 }
    ) throws -> [String: (bytes: [UInt8], scales: [Float])] {
        let file = try SafetensorsFile(path: scratch / "model.safetensors")
        var (json, data) = (JSONWriter(), [UInt8]())
        var made: [String: (bytes: [UInt8], scales: [Float])] = [:]
        json.object { json in
            func add(_ name: String, _ type: String, _ shape: [Int], _ bytes: [UInt8]) {
                json.object(name) {
                    $0.field("dtype", type)
                    $0.array("shape") { for extent in shape { $0.value(extent) } }
                    $0.array("data_offsets") {
                        $0.value(data.count)
                        $0.value(data.count + bytes.count)
                    }
                }
                data += bytes
            }
            for tensor in file.tensors {
                let all = file.file.bytes
                guard names.contains(where: { tensor.name.hasSuffix($0) }) else {
                    add(
                        tensor.name, tensor.type, tensor.shape,
                        Array(all[tensor.offset..<tensor.offset + tensor.byteCount]))
                    continue
                }
                let bytes = (0..<tensor.shape.reduce(1, *)).map(byte)
                let shape = scaleShape(tensor.shape)
                let scales = (0..<shape.reduce(1, *)).map { Float($0 + 1) * 0.0007 }
                made[tensor.name] = (bytes, scales)
                add(tensor.name, "F8_E4M3", tensor.shape, bytes)
                add(tensor.name + "_scale_inv", "F32", shape, scales.flatMap { withUnsafeBytes(of: $0) { Array($0) } })
            }
        }
        try scratch.write("model.safetensors", safetensors(json.text, data: data))
        try scratch.changeConfig(["quantization_config": Self.config])
        return made
    }

    private static func blocks(_ shape: [Int]) -> [Int] { [(shape[0] + 15) / 16, (shape[1] + 23) / 24] }

    /// E4M3 by its definition.
    private func value(_ byte: UInt8) -> Float {
        let (exponent, mantissa) = (Int(byte >> 3 & 15), Float(byte & 7))
        var magnitude = exponent == 0 ? mantissa / 8 : 1 + mantissa / 8
        for _ in 0..<abs(max(exponent, 1) - 7) { magnitude *= max(exponent, 1) > 7 ? 2 : 0.5 }
        return byte & 0x80 == 0 ? magnitude : -magnitude
    }

    @Test func weightsAreBytesTimesScales() throws {
        let names = ["self_attn.k_proj.weight", "mlp.down_proj.weight"]
        let made = try write(names, scaleShape: Self.blocks)
        let model = try ModelFile(path: try scratch.convert(type: .f32).path)
        guard case .dense(let mlp) = model.weights.layers[1].feedForward else {
            Issue.record("no dense layer")
            return
        }
        for (name, matrix) in [
            ("model.layers.1.self_attn.k_proj.weight", model.weights.layers[1].key),
            ("model.layers.1.mlp.down_proj.weight", mlp.down),
        ] {
            let (bytes, scales) = try #require(made[name])
            let perRow = Self.blocks([matrix.rows, matrix.columns])[1]
            for row in 0..<matrix.rows {
                let found = matrix.data(row: row).assumingMemoryBound(to: Float.self)
                for column in 0..<matrix.columns {
                    let scale = scales[row / 16 * perRow + column / 24]
                    #expect(found[column] == value(bytes[row * matrix.columns + column]) * scale)
                }
            }
        }
        // As any other type.
        #expect(try ModelFile(path: try scratch.convert(to: "q.gguf").path).weights.layers[0].key.type == .q8_0)
    }

    @Test func damagedCheckpoints() throws {
        func refused(_ item: String) {
            let error = sigmaError { try scratch.convert() }
            #expect(error?.kind == .damaged && error?.item == item, "\(error.map { "\($0)" } ?? "none")")
        }
        let key = "model.layers.0.self_attn.k_proj.weight"
        _ = try write(["self_attn.k_proj.weight"], scaleShape: { _ in [1, 1] })
        refused(key + "_scale_inv")
        try scratch.changeConfig(["quantization_config": #"{"quant_method":"fp8","fmt":"e5m2"}"#])
        refused("quantization_config.fmt")
        try scratch.changeConfig(["quantization_config": #"{"quant_method":"fp8","weight_block_size":[128]}"#])
        refused("quantization_config.weight_block_size")
        try scratch.changeConfig(["quantization_config": #"{"quant_method":"awq"}"#])
        refused("quantization_config")
        try scratch.changeConfig(["quantization_config": nil])
        refused(key)
    }

    @Test func notANumberIsRefused() throws {
        _ = try write(["self_attn.k_proj.weight"], scaleShape: Self.blocks) { $0 == 40 ? 0x7f : 0x38 }
        let error = sigmaError { try scratch.convert() }
        #expect(error?.item == "model.layers.0.self_attn.k_proj.weight")
        #expect(error?.message.contains("row 1, column 8") == true, "\(error?.message ?? "none")")
    }
}
