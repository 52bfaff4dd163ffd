import Sigma

/// Sums of the squares of what enters a model's matrices: 12 bytes for every number, all in use from the beginning, so that a memory budget
/// that is made afterwards knows of them.
package final class ImportanceSums {
    /// As the entries of the result: means [groups, width], still 0, and tokens [groups].
    var entries: [ImportanceMatrix.Entry]
    /// [groups, width] of each entry.
    var squares: [[Double]]
    let places: [String: Int]

    package init(_ configuration: ModelConfiguration) {
        entries = ImportanceMatrix.blank(configuration)
        squares = entries.map { Array(repeating: 0, count: $0.means.count) }
        places = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($0.element.name, $0.offset) })
    }
}
