/// What studies of a model's weights ask of a back end that lets them be replaced.
package protocol WeightExperiments: AnyObject {
    /// The weights that steps compute with; nil where they cannot be replaced.
    var replaceableWeights: ModelWeights? { get }
    /// From the next step on, steps compute with these weights: of the same shapes and of float types where the model's are, in memory that
    /// lives until they are replaced again. Not inside a step, and only where they can be replaced.
    func replaceWeights(_ weights: ModelWeights)
}
