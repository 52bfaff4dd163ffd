import Sigma
