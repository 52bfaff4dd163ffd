import Sigma
import SigmaConversion

/// Small synthetic models whose output head is screened.
package enum ScreenedModel {
    /// The last group of 16 rows is not whole, and neither is the last tile.
    package static let shape = SyntheticModel.Shape(
        name: "screened", layerCount: 2, hiddenSize: 768, headCount: 4, kvHeadCount: 2, headDim: 64, expertCount: 4,
        expertIntermediateSize: 256, vocabularySize: 5003, contextLength: 4096)

    /// Writes one.
    package static func write(
        to path: String, headType: WeightType, screening: HeadScreening = .on, type: WeightType = .q8_0
    ) throws {
        var options = SyntheticModel.Options(type: type, outputType: headType)
        options.shape = shape
        options.threads = 2
        try Converter.convert(
            SyntheticModel(options).input,
            Converter.Options(
                input: "", output: path, type: type, outputType: headType, overrides: Overrides(),
                headScreening: screening, threads: 2))
    }

    /// A file's bytes with a coarse plane that estimates half of the head's rows as nothing, and is sure of it. Only the records' checksums would
    /// tell.
    package static func damagingPlane(_ bytes: [UInt8], of file: ModelFile) -> [UInt8] {
        var bytes = bytes
        guard let plane = file.gguf.tensor(ModelFileFormat.screenCoarse) else { return bytes }
        let groupBytes = plane.dimensions[0]
        for group in stride(from: 0, to: plane.dimensions[1], by: 2) {
            for place in groupBytes - 192..<groupBytes { bytes[plane.offset + group * groupBytes + place] = 0 }
        }
        return bytes
    }
}
